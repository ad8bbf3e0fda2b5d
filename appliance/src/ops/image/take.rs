//! What is said when a version has come into the store, by import or by build.

use koboshi_images::{Imported, Store};

use super::{by, lint, mib, print};

/// Says what came in, and publishes it where that was asked.
pub(super) fn told(
    store: &Store,
    imported: Imported,
    publish: bool,
    reason: Option<String>,
) -> anyhow::Result<()> {
    for warning in &imported.warnings {
        eprintln!("warning: {warning}");
    }
    let version = &imported.version;
    let (name, number) = (&version.name, version.version);
    let what = if imported.new {
        "is in the store"
    } else {
        "is in the store already, the same to the bit"
    };
    let mut text = format!(
        "{name}@{number} {what}: kernel {}, root {}\n",
        version.boot.kernel_release,
        mib(version.boot.size())
    );
    if publish {
        // It is in the store whether or not it may be booted.
        print(&std::mem::take(&mut text))?;
        store.publish(name, Some(number), &by(reason))?;
        lint::warn(store, &version.to_string())?;
        text.push_str(&format!("{name}@{number} is what machines boot now\n"));
    } else if version.published.is_none() {
        text.push_str(&format!("`koboshi image publish {name}` lets machines boot it\n"));
    }
    print(&text)
}

//! A socket in the file system that gives bytes as they are, as virtual machines have.

use std::path::Path;

use tokio::net::UnixStream;

use super::stream::drive;
use super::tcp::Plain;
use super::{NotOpen, Wire};

pub(super) async fn open(path: &Path) -> Result<Wire, NotOpen> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|why| NotOpen::Away(format!("{}: {why}", path.display())))?;
    Ok(drive(stream, Plain("a Unix socket")))
}

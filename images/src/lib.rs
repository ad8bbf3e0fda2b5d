//! The image store: what a role's machines boot, kept as an OCI image layout.
//!
//! Layout, in the order an import runs through it:
//! - `source`: a directory, a tar, an OCI or docker archive, read into a `tree` without
//!   unpacking anything onto the host: no root, no device nodes, no path that could escape;
//! - `kernel`: which kernel the tree boots, and whether its modules are there; `modules`: which
//!   of them the root itself keeps;
//! - `layer`: what one layer must hold to make one tree of another;
//! - `pack`: a layer as one normalised tar, the same bytes wherever the tree came from;
//! - `stack`: which layers are kept as they are, which packed anew;
//! - `boot`: kernel, microcode and modules as artefacts of their own, beside the image; `manifest`:
//!   its documents;
//! - `staging` and `store`: blobs enter the layout whole or not at all;
//! - `version`: names, versions, and what a machine is to boot; `publish`: which version that is;
//! - `lint`: what must not be in an image, and who answers for it where it is;
//! - `look`: the root of a version read back as a tree;
//! - `log`: who did what; `holds`: what the appliance needs; `reach` and `collect`: what can go; `damage`:
//!   what cannot be read any more;
//! - `diff`: in what two roots differ; `look`: a root read back from its layers;
//! - `squash`: the root once more as a squashfs, for those who want it;
//! - `live`: what changed on a machine that runs, and the next version made of it;
//! - `registry`: images fetched from, and sent to, where others keep theirs;
//! - `recipe`, `build`, `debian`: images made from a description of a page.
//!
//! Everything blocks; the caller decides on which thread.

mod boot;
mod build;
mod collect;
mod content;
mod damage;
mod debian;
mod diff;
mod digest;
mod error;
mod holds;
mod import;
mod kernel;
mod layer;
mod lint;
mod live;
mod log;
mod look;
mod manifest;
mod modules;
mod oci;
mod pack;
mod publish;
mod reach;
mod recipe;
pub mod registry;
mod source;
mod squash;
mod stack;
mod staging;
mod store;
mod tree;
mod trial;
mod version;

pub use build::{BuildOptions, build};
pub use collect::Collected;
pub use damage::Damaged;
pub use diff::{Aspect, Change, Counts, Diff, Facts, NoText, Package, What};
pub use digest::{BadDigest, Digest};
pub use error::{Error, Fault};
pub use holds::{Holds, MachineHold, RoleHold};
pub use import::{ImportOptions, Imported, Progress, import};
pub use lint::{Allowance, Finding, Report, Rule, Severity, lint, rule, rules};
pub use live::{Chosen, Committed, Live, Wanted};
pub use log::{Act, By, Log};
pub use modules::Modules;
pub use publish::Pin;
pub use reach::Usage;
pub use recipe::{BadRecipe, Kernel, Recipe, shipped};
pub use source::Limits;
pub use squash::squash;
pub use store::Store;
pub use trial::{Marks, Tested, Track, Trial, Withdrawn};
pub use version::{Blob, Bootable, ImageRef, Layer, Version, check_name};

//! The image store from outside, with archives made by GNU tar and by hand.
//!
//! - `collect`: what is removed, and what stays;
//! - `sources`: the same root by every road gives the same image;
//! - `full`: a disk that is full at any page, and at any file;
//! - `hostile`: archives of strangers, cut, bent, lying and bombs;
//! - `layers`: OCI layouts and archives, docker archives;
//! - `lint`: what must not be in an image;
//! - `live`: what changed on a machine that runs;
//! - `recipes`: roots built from a page of text;
//! - `registry`: pulling and pushing, and servers that lie;
//! - `squash`: the root as a squashfs;
//! - `stacked`: layers kept as layers, and skopeo carrying them;
//! - `store`: versions, publishing, two at once, and what a kill leaves behind;
//! - `trial`: versions for some machines before all, or instead.

mod collect;
mod fixture;
mod full;
mod hostile;
mod layers;
mod lint;
mod live;
mod recipes;
mod registry;
mod sources;
mod squash;
mod stacked;
mod store;
mod trial;

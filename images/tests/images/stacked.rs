//! Images of layers stay images of layers: what each of ours holds, what images share, and that
//! skopeo carries them there and back byte for byte.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use koboshi_images::{Digest, ImportOptions, Store, import};
use rustix::fs::{XattrFlags, setxattr};
use tar::EntryType::{Directory, Link, Regular};

use crate::fixture::{Bench, base_tar, member, run, told};
use crate::layers::Layout;

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// A second layer by GNU tar, of a folder that `fill` fills.
fn above(bench: &Bench, options: &[&str], fill: impl FnOnce(&Path)) -> Vec<u8> {
    let folder = bench.path("above");
    fs::create_dir(&folder).unwrap();
    fill(&folder);
    let fixed = ["--sort=name", "--mtime=@1700000000", "--format=posix"];
    let args = ["-cf", "../above.tar"].iter().chain(&fixed).chain(options).chain(&["."]);
    run("tar", &args.copied().collect::<Vec<_>>(), &folder);
    fs::read(bench.path("above.tar")).unwrap()
}

fn base() -> Vec<u8> {
    base_tar().into_inner().unwrap()
}

/// Imports the base with these layers on it.
fn stack(bench: &Bench, layers: &[Vec<u8>]) {
    let all = [base()].into_iter().chain(layers.iter().cloned());
    let all: Vec<(&str, Vec<u8>)> = all.map(|layer| (PLAIN, layer)).collect();
    bench.import_bytes(&Layout::new(&all).archive()).unwrap();
    let version = bench.store.show("web").unwrap();
    bench.store.verify(&version).unwrap();
    assert_eq!(version.boot.layers.len(), 1 + layers.len());
}

fn names(tar: &[u8]) -> Vec<String> {
    told(tar).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn ten_images_on_one_base_store_it_once() {
    let bench = Bench::new();
    let mut bases = Vec::new();
    let mut kernels = Vec::new();
    for n in 0..10 {
        let mut builder = tar::Builder::new(Vec::new());
        member(&mut builder, "etc/role", Regular, "", format!("role {n}").as_bytes());
        let layers = [(PLAIN, base()), (PLAIN, builder.into_inner().unwrap())];
        let path = bench.path("archive");
        fs::write(&path, Layout::new(&layers).archive()).unwrap();
        let name = format!("role{n}");
        let options = ImportOptions::default();
        let made = import(&bench.store, &name, &path, &options, &mut |_| ()).unwrap().version;
        assert_eq!(made.boot.layers.len(), 2);
        assert_eq!(names(&bench.layer_tars(&name)[1]), [".", "etc", "etc/role"]);
        bases.push(made.boot.layers[0].blob);
        kernels.push((made.boot.kernel, made.beside));
    }
    bases.dedup();
    kernels.dedup();
    assert_eq!((bases.len(), kernels.len()), (1, 1));
    // And an image of the base alone has the same layer.
    bench.import_bytes(&base()).unwrap();
    assert_eq!(bench.store.show("web").unwrap().boot.layers[0].blob, bases[0]);
}

#[test]
fn whiteouts_are_named_one_by_one_and_opaque_ones_spelled_out() {
    let bench = Bench::new();
    let layer = above(&bench, &[], |folder| {
        fs::create_dir(folder.join("etc")).unwrap();
        fs::write(folder.join("etc/.wh.hostname"), b"").unwrap();
        fs::write(folder.join("etc/.wh.never-there"), b"").unwrap();
        fs::create_dir(folder.join("var")).unwrap();
        fs::write(folder.join("var/.wh..wh..opq"), b"").unwrap();
        fs::write(folder.join("var/new"), b"new").unwrap();
    });
    stack(&bench, &[layer]);
    let names = names(&bench.layer_tars("web")[1]);
    assert_eq!(names, [".", "etc/.wh.hostname", "var/.wh.big", "etc", "var", "var/new"]);
    let merged = bench.merged("web");
    assert!(!merged.contains_key("etc/hostname") && merged.contains_key("etc"));
    assert!(!merged.contains_key("var/big") && merged.contains_key("var/new"));
}

#[test]
fn a_hard_link_to_a_lower_layer_brings_its_file() {
    let bench = Bench::new();
    let mut builder = tar::Builder::new(Vec::new());
    member(&mut builder, "etc/aka", Link, "etc/hostname", b"");
    stack(&bench, &[builder.into_inner().unwrap()]);
    let tars = bench.layer_tars("web");
    assert_eq!(names(&tars[1]), [".", "etc", "etc/aka", "etc/hostname"]);
    let merged = bench.merged("web");
    assert!(merged["etc/aka"].starts_with("Regular"), "{}", merged["etc/aka"]);
    assert!(merged["etc/hostname"].starts_with("Link"), "{}", merged["etc/hostname"]);
    assert!(merged["etc/hostname"].contains("etc/aka"));
}

#[test]
fn attributes_and_capabilities_survive_a_stack() {
    let bench = Bench::new();
    let capability = b"\x01\0\0\x02\0\x20\0\x04\0\0\0\0\0\0\0\0\0\0\0\0";
    let layer = above(&bench, &["--xattrs", "--xattrs-include=*"], |folder| {
        let (ping, flags) = (folder.join("ping"), XattrFlags::empty());
        fs::write(&ping, b"ping").unwrap();
        setxattr(&ping, "user.note", b"a=b", flags).unwrap();
        if rustix::process::geteuid().is_root() {
            setxattr(&ping, "security.capability", capability, flags).unwrap();
        }
    });
    let want: Vec<_> = told(&layer).into_iter().filter(|(path, _)| path == "./ping").collect();
    assert!(want[0].1.contains("user.note"), "{want:?}");
    stack(&bench, &[layer]);
    assert_eq!(bench.merged("web")["ping"], want[0].1);
}

#[test]
fn device_nodes_survive_a_stack_but_overlayfs_own_mark_does_not() {
    let bench = Bench::new();
    let mut builder = tar::Builder::new(Vec::new());
    let device = |builder: &mut tar::Builder<Vec<u8>>, name: &str, major, minor| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Char);
        header.set_mode(0o666);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(5);
        header.set_mtime(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_path(name).unwrap();
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
    };
    device(&mut builder, "dev/null", 1, 3);
    device(&mut builder, "dev/mark", 0, 0);
    let layers = [(PLAIN, base()), (PLAIN, builder.into_inner().unwrap())];
    let imported = bench.import_bytes(&Layout::new(&layers).archive()).unwrap();
    assert!(imported.warnings[0].contains("/dev/mark left out"), "{:?}", imported.warnings);
    let merged = bench.merged("web");
    assert!(merged["dev/null"].starts_with("Char 666 0:5 Some((1, 3))"), "{}", merged["dev/null"]);
    assert!(!merged.contains_key("dev/mark"));
}

#[test]
fn holes_survive_a_stack() {
    let bench = Bench::new();
    let layer = above(&bench, &["--sparse"], |folder| {
        let file = fs::File::create(folder.join("holes")).unwrap();
        file.set_len(3_000_000).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 5000], 1_000_000).unwrap();
    });
    let bytes = fs::read(bench.path("above/holes")).unwrap();
    assert!(layer.len() < 1 << 20, "GNU tar left the holes out");
    stack(&bench, &[layer]);
    assert!(bench.merged("web")["holes"].contains(&Digest::of(&bytes).to_string()));
}

#[test]
fn owners_survive_a_stack() {
    let bench = Bench::new();
    let owner = ["--numeric-owner", "--owner=70000", "--group=3000000"];
    let layer = above(&bench, &owner, |folder| fs::write(folder.join("theirs"), b"x").unwrap());
    stack(&bench, &[layer]);
    let theirs = &bench.merged("web")["theirs"];
    assert!(theirs.contains(" 70000:"), "{theirs}");
    let tar = &bench.layer_tars("web")[1];
    let mut archive = tar::Archive::new(&tar[..]);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let owners: Vec<(u64, u64)> = entries
        .filter(|entry| &*entry.path_bytes() == b"theirs")
        .map(|entry| (entry.header().uid().unwrap(), entry.header().gid().unwrap()))
        .collect();
    assert_eq!(owners, [(70_000, 3_000_000)]);
}

#[test]
fn too_many_layers_become_as_many_as_a_machine_mounts() {
    let bench = Bench::new();
    let layer = |n: usize| {
        let mut builder = tar::Builder::new(Vec::new());
        member(&mut builder, &format!("etc/{n}"), Regular, "", n.to_string().as_bytes());
        // Each takes away what the one before it brought, but for every fifth.
        if n > 0 && !n.is_multiple_of(5) {
            member(&mut builder, &format!("etc/.wh.{}", n - 1), Regular, "", b"");
        }
        // And one that says nothing.
        (PLAIN, builder.into_inner().unwrap())
    };
    let empty = (PLAIN, tar::Builder::new(Vec::new()).into_inner().unwrap());
    let mut layers = vec![(PLAIN, base()), empty];
    layers.extend((0..40).map(layer));
    let imported = bench.import_bytes(&Layout::new(&layers).archive()).unwrap();
    assert!(imported.version.boot.layers.len() <= 24, "{}", imported.version.boot.layers.len());
    assert!(imported.warnings[0].contains("42 layers became 24"), "{:?}", imported.warnings);
    let merged = bench.merged("web");
    let left = (0..40).filter(|n| merged.contains_key(&format!("etc/{n}"))).collect::<Vec<_>>();
    assert_eq!(left, [4, 9, 14, 19, 24, 29, 34, 39]);
}

fn skopeo(from: &str, to: &str) {
    run("skopeo", &["--insecure-policy", "copy", "--quiet", from, to], Path::new("/"));
}

fn layout(dir: &Path, name: &str) -> String {
    format!("oci:{}:{name}", dir.display())
}

/// Digest of the one manifest a layout leads to.
fn only(dir: &Path) -> String {
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn skopeo_carries_an_image_out_and_back_byte_for_byte() {
    let bench = Bench::new();
    let mut builder = tar::Builder::new(Vec::new());
    member(&mut builder, "etc/.wh.hostname", Regular, "", b"");
    member(&mut builder, "srv", Directory, "", b"");
    stack(&bench, &[builder.into_inner().unwrap()]);
    let ours = bench.store.show("web").unwrap();
    let (out, archive): (PathBuf, PathBuf) = (bench.path("out"), bench.path("out.tar"));
    skopeo(&layout(bench.store.dir(), "web:1"), &layout(&out, "web"));
    skopeo(&layout(&out, "web"), &format!("oci-archive:{}:web", archive.display()));
    assert_eq!(only(&out), ours.digest.to_string());
    for source in [&out, &archive] {
        // Here it is known; elsewhere it becomes the same.
        assert!(!bench.import(source).unwrap().new);
        let other = tempfile::tempdir().unwrap();
        let store = Store::open(other.path().join("images")).unwrap();
        let back = import(&store, "web", source, &ImportOptions::default(), &mut |_| ()).unwrap();
        assert_eq!(back.version.digest, ours.digest);
        assert_eq!(back.version.boot, ours.boot, "kernel, modules and layers");
        store.verify(&back.version).unwrap();
        assert!(back.warnings.iter().all(|said| !said.contains("layers became")));
    }
    // skopeo finds all it wants in a store that it is to copy into.
    let theirs = bench.path("theirs");
    skopeo(&layout(&out, "web"), &layout(&theirs, "one"));
    skopeo(&layout(bench.store.dir(), "web:1"), &layout(&theirs, "one"));
    assert_eq!(only(&theirs), ours.digest.to_string());
}

#[test]
fn an_image_bent_on_its_way_is_no_longer_ours() {
    let bench = Bench::new();
    bench.import_bytes(&base()).unwrap();
    let ours = bench.store.show("web").unwrap();
    let out = bench.path("out");
    skopeo(&layout(bench.store.dir(), "web:1"), &layout(&out, "web"));
    // Another level of compression: the same tar, other bytes. It stays as it came.
    let manifest = fs::read(out.join("blobs/sha256").join(&only(&out)[7..])).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let digest = manifest["layers"][1]["digest"].as_str().unwrap()[7..].to_owned();
    let tar = zstd::decode_all(&fs::read(out.join("blobs/sha256").join(digest)).unwrap()[..]);
    let packed = zstd::encode_all(&tar.unwrap()[..], 1).unwrap();
    let store_blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(out.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest, "size": bytes.len()})
    };
    let blob = store_blob(&packed);
    for key in ["digest", "size"] {
        manifest["layers"][1][key] = blob[key].clone();
    }
    let point = |manifest: &serde_json::Value| {
        let found = store_blob(manifest.to_string().as_bytes());
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [found]});
        fs::write(out.join("index.json"), index.to_string()).unwrap();
        found["digest"].as_str().unwrap().to_owned()
    };
    let digest = point(&manifest);
    let back = bench.import(&out).unwrap();
    assert_eq!(back.version.digest.to_string(), digest, "kept as it came");
    assert_eq!(back.version.boot.kernel, ours.boot.kernel);
    // A manifest that says other things of the boot is made anew: the very first one.
    for (pointer, value) in [
        ("/annotations/dev.koboshi.boot", Digest::of(b"x").to_string()),
        ("/layers/0/annotations/dev.koboshi.layer", "other".to_owned()),
    ] {
        let mut lying = manifest.clone();
        *lying.pointer_mut(pointer).unwrap() = value.into();
        let digest = point(&lying);
        let back = bench.import(&out).unwrap();
        assert_ne!(back.version.digest.to_string(), digest, "{pointer}");
        assert_eq!(back.version.boot.kernel, ours.boot.kernel, "{pointer}");
        bench.store.verify(&back.version).unwrap();
    }
}

/// Others unpack what we pack.
#[test]
fn umoci_makes_the_same_root_of_our_layers() {
    let bench = Bench::new();
    let layer = above(&bench, &[], |folder| {
        fs::create_dir(folder.join("etc")).unwrap();
        fs::write(folder.join("etc/.wh.hostname"), b"").unwrap();
        fs::write(folder.join("etc/motd"), b"hello").unwrap();
        symlink("motd", folder.join("etc/link")).unwrap();
        // A directory below is a file here.
        fs::write(folder.join("var"), b"a file now").unwrap();
    });
    stack(&bench, &[layer]);
    let gzip = bench.path("gzip");
    let (from, to) = (layout(bench.store.dir(), "web:1"), layout(&gzip, "web"));
    let options = ["--insecure-policy", "copy", "--quiet", "--dest-compress-format", "gzip"];
    let args = options.into_iter().chain([from.as_str(), to.as_str()]).collect::<Vec<_>>();
    let out = Command::new("skopeo").args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let image = format!("{}:web", gzip.display());
    run("umoci", &["raw", "unpack", "--rootless", "--image", &image, "bundle"], bench.dir.path());
    let root = bench.path("bundle");
    assert!(!root.join("etc/hostname").exists());
    assert_eq!(fs::read(root.join("etc/link")).unwrap(), b"hello");
    assert_eq!(fs::read(root.join("var")).unwrap(), b"a file now");
    assert!(root.join(format!("boot/vmlinuz-{}", crate::fixture::RELEASE)).exists());
}

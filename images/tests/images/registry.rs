//! Registries: docker-registry and skopeo as peers, and a server that lies.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use koboshi_images::registry::{Options, Remote, pull, push};
use koboshi_images::{Digest, Error, ImportOptions, Imported};

use crate::fixture::{Bench, run};

fn options() -> Options {
    Options { plain_http: true, ..Options::default() }
}

fn pulled(bench: &Bench, from: &str) -> Result<Imported, Error> {
    let from: Remote = from.parse().unwrap();
    pull(&bench.store, "web", &from, &options(), &ImportOptions::default(), &mut |_| ())
}

/// Debian's registry on a port of its own, gone with the test.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    fn start(bench: &Bench) -> Registry {
        let host = TcpListener::bind("127.46.6.1:0").unwrap().local_addr().unwrap().to_string();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {host}\n",
            bench.path("registry").display()
        );
        fs::write(bench.path("registry.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(bench.path("registry.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("docker-registry: `make setup` installs it");
        let registry = Registry { child, host };
        let begun = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_image_goes_through_docker_registry_and_skopeo_and_comes_back_the_same() {
    let bench = Bench::new();
    let version = bench.import(&bench.root()).unwrap().version;
    let registry = Registry::start(&bench);
    let to: Remote = format!("docker://{}/team/web:1", registry.host).parse().unwrap();
    for _ in 0..2 {
        let digest = push(&bench.store, "web@1", &to, &options(), &mut |_| ()).unwrap();
        assert_eq!(digest, version.digest);
    }
    // Others take it for an image, and copy it on as it is.
    let copy = format!("docker://{}/copy:2", registry.host);
    let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let from = to.to_string();
    let args = [&["copy", "--preserve-digests"], &insecure[..], &[&from, &copy]].concat();
    run("skopeo", &args, bench.dir.path());
    run("skopeo", &["inspect", "--tls-verify=false", &copy], bench.dir.path());

    let other = Bench::new();
    let back = pulled(&other, &copy).unwrap();
    assert!(back.new);
    assert_eq!(back.version.digest, version.digest, "the manifest, and all it names");
    assert_eq!(back.version.boot.kernel, version.boot.kernel);
    assert_eq!(back.version.boot.segments, version.boot.segments);
    assert_eq!(back.version.boot.layers, version.boot.layers);
    other.store.verify(&back.version).unwrap();
    // Once more is nothing new; by its digest it is the same.
    let by_digest = format!("docker://{}/team/web@{}", registry.host, version.digest);
    assert!(!pulled(&other, &by_digest).unwrap().new);
    let missing = pulled(&other, &format!("docker://{}/nothing:1", registry.host)).unwrap_err();
    assert!(missing.to_string().contains("has no nothing manifests/1"), "{missing}");
}

/// What a server of one's own answers to one request: head, body, and how much of it.
type Answer = Box<dyn Fn(&Asked) -> Vec<u8> + Send + Sync>;

struct Asked {
    path: String,
    headers: BTreeMap<String, String>,
}

/// What was asked for, and with which `Authorization`.
type Seen = Mutex<Vec<(String, Option<String>)>>;

/// A server that answers as it is told, and remembers what it was asked.
struct Liar {
    host: String,
    asked: Arc<Seen>,
}

fn liar(answer: Answer) -> Liar {
    let listener = TcpListener::bind("127.46.6.2:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Seen::default());
    let seen = asked.clone();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, seen) = (answer.clone(), seen.clone());
            std::thread::spawn(move || serve(stream.unwrap(), &answer, &seen));
        }
    });
    Liar { host, asked }
}

fn serve(stream: TcpStream, answer: &Answer, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let said = headers.get("authorization").cloned();
    seen.lock().unwrap().push((path.clone(), said));
    let bytes = answer(&Asked { path, headers });
    let mut stream = stream;
    // Whoever has had enough hangs up.
    let _ = stream.write_all(&bytes);
}

fn respond(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    let lengths = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    if !lengths {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// An image of one layer as a registry has it: its manifest, and its blobs.
fn image(bench: &Bench) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let version = bench.import(&bench.root()).unwrap().version;
    let manifest = fs::read(bench.store.blob_path(&version.digest)).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = value["layers"].as_array().unwrap().iter().chain([&value["config"]]);
    let blobs = layers.map(|found| {
        let digest = found["digest"].as_str().unwrap().to_owned();
        let path = bench.store.blob_path(&digest.parse::<Digest>().unwrap());
        (digest, fs::read(path).unwrap())
    });
    let blobs = blobs.collect();
    (manifest, blobs)
}

/// Nothing half in the store, nothing left beside it but whole blobs.
fn assert_nothing(bench: &Bench) {
    bench.assert_clean();
    let left = fs::read_dir(bench.store.dir().join("pull")).into_iter().flatten();
    for entry in left {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("layout-"), "{name} is left");
    }
}

fn is_blob(path: &str) -> Option<&str> {
    path.split_once("/blobs/").map(|(_, digest)| digest)
}

#[test]
fn a_registry_that_lies_is_told_so_and_leaves_nothing() {
    let source = Bench::new();
    let (manifest, blobs) = image(&source);
    type Lie = (&'static str, fn(&Asked, Vec<u8>) -> Vec<u8>);
    let lies: &[Lie] = &[
        ("gives other bytes", |asked, mut body| {
            if is_blob(&asked.path).is_some() {
                let last = body.len() - 1;
                body[last] ^= 1;
            }
            respond("200 OK", &[], &body)
        }),
        ("broke off at byte", |asked, body| match is_blob(&asked.path) {
            Some(_) => {
                let length = body.len().to_string();
                respond("200 OK", &[("Content-Length", &length)], &[])
            }
            None => respond("200 OK", &[], &body),
        }),
        ("bytes for", |asked, body| match is_blob(&asked.path) {
            Some(_) => respond("200 OK", &[], &[&body[..], b"more"].concat()),
            None => respond("200 OK", &[], &body),
        }),
        ("gives more than", |asked, body| match is_blob(&asked.path) {
            Some(_) => {
                let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                [&head[..], &body, &vec![0; 1 << 20]].concat()
            }
            None => respond("200 OK", &[], &body),
        }),
        ("what is no manifest", |_, _| respond("200 OK", &[], b"<html>Sign in</html>")),
        ("is larger than", |_, _| {
            let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            [&head[..], &vec![b'['; 5 << 20]].concat()
        }),
        ("neither docker's schema 2", |_, _| respond("200 OK", &[], b"{\"schemaVersion\":1}")),
        ("says sha256:00", |_, body| {
            let other = format!("sha256:{}", "00".repeat(32));
            respond("200 OK", &[("Docker-Content-Digest", &other)], &body)
        }),
        ("500", |_, _| respond("500 Internal Server Error", &[], b"<h1>oops</h1>")),
        ("without end", |asked, _| respond("307 X", &[("Location", &asked.path)], b"")),
        ("no address", |_, _| respond("307 X", &[("Location", "file:///etc/passwd")], b"")),
        ("has a layer that lies elsewhere", |_, body| {
            let text = String::from_utf8(body).unwrap();
            let text = text.replacen("\"layers\":[{", "\"layers\":[{\"urls\":[\"http://x/\"],", 1);
            respond("200 OK", &[], text.as_bytes())
        }),
        ("at most", |_, body| {
            let mut value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            value["layers"][0]["size"] = (1u64 << 60).into();
            respond("200 OK", &[], value.to_string().as_bytes())
        }),
        ("has no image for", |_, _| {
            let list = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:00","size":2,
                "platform":{"os":"linux","architecture":"s390x"}}]}"#;
            respond("200 OK", &[], list.as_bytes())
        }),
        ("wants a login", |_, _| {
            respond("401 X", &[("WWW-Authenticate", "Basic realm=\"x\"")], b"")
        }),
    ];
    for (wanted, lie) in lies {
        let (manifest, blobs, lie) = (manifest.clone(), blobs.clone(), *lie);
        let server = liar(Box::new(move |asked| {
            let body = is_blob(&asked.path).map_or(&manifest, |digest| &blobs[digest]);
            lie(asked, body.clone())
        }));
        let bench = Bench::new();
        let error = pulled(&bench, &format!("docker://{}/web:1", server.host)).unwrap_err();
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
        assert_nothing(&bench);
    }
}

#[test]
fn a_download_that_breaks_off_is_gone_on_with() {
    let source = Bench::new();
    let (manifest, blobs) = image(&source);
    let server = liar(Box::new(move |asked| {
        let Some(digest) = is_blob(&asked.path) else { return respond("200 OK", &[], &manifest) };
        let blob = &blobs[digest];
        let range = asked.headers.get("range");
        let from = range.map_or(0, |range| {
            range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
        });
        let rest = &blob[from..];
        let length = rest.len().to_string();
        let said = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
        let headers = [("Content-Length", &length[..]), ("Content-Range", &said)];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        // At most so much at a time, whatever was promised.
        respond(status, &headers, &rest[..rest.len().min(5_000)])
    }));
    let bench = Bench::new();
    let back = pulled(&bench, &format!("docker://{}/web:1", server.host)).unwrap();
    assert_eq!(back.version.digest, source.store.show("web").unwrap().digest);
    let asked = server.asked.lock().unwrap();
    let most = asked.iter().filter(|(path, _)| is_blob(path).is_some()).count();
    assert!(most > 3, "never broke off: {most}");
}

#[test]
fn a_login_goes_to_its_registry_and_to_nobody_it_sends_us_to() {
    let source = Bench::new();
    let (manifest, blobs) = image(&source);
    // Where the blobs lie: another host, which must not learn who we are.
    let store = liar(Box::new(move |asked| {
        respond("200 OK", &[], &blobs[asked.path.trim_start_matches('/')])
    }));
    let elsewhere = store.host.clone();
    let front = liar(Box::new(move |asked| {
        // base64 of `ann:s3cret`.
        if asked.headers.get("authorization").map(String::as_str) != Some("Basic YW5uOnMzY3JldA==")
        {
            return respond("401 X", &[("WWW-Authenticate", "Basic realm=\"r\"")], b"");
        }
        match is_blob(&asked.path) {
            Some(digest) => {
                let to = format!("http://{elsewhere}/{digest}");
                respond("307 Temporary Redirect", &[("Location", &to)], b"")
            }
            None => respond("200 OK", &[], &manifest),
        }
    }));
    let bench = Bench::new();
    let creds = bench.path("creds");
    fs::write(&creds, "ann:s3cret\n").unwrap();
    let how = Options { creds_file: Some(creds), ..options() };
    let from: Remote = format!("docker://{}/web:1", front.host).parse().unwrap();
    let get = |from: &Remote| {
        pull(&bench.store, "web", from, &how, &ImportOptions::default(), &mut |_| ())
    };
    get(&from).unwrap();
    let asked = store.asked.lock().unwrap();
    assert!(!asked.is_empty() && asked.iter().all(|(_, said)| said.is_none()), "{asked:?}");
    // A token's server of another house gets no login either.
    let thief = liar(Box::new(|_| respond("403 Forbidden", &[], b"")));
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"x\"", thief.host);
    let sends = liar(Box::new(move |_| respond("401 X", &[("WWW-Authenticate", &realm)], b"")));
    let error = get(&format!("docker://{}/web:1", sends.host).parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("our login was not sent there"), "{error}");
    let asked = thief.asked.lock().unwrap();
    assert!(!asked.is_empty() && asked.iter().all(|(_, said)| said.is_none()), "{asked:?}");
}

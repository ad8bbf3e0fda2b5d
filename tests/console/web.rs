//! The ways in for browsers and programs: WebSockets on both addresses, and a socket of bytes.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::person::{CEILING, reads, site};
use crate::world::{World, in_world};

const ADMIN: &str = "127.0.0.1:7070";

type Browser = WebSocketStream<TcpStream>;

/// What a browser does with such an address, on a page of this origin; or the status of the refusal.
async fn opens(url: &str, origin: Option<&str>) -> Result<Browser, u16> {
    let (page, ticket) = url.split_once('#').expect("a ticket");
    let socket = format!("{}/attach?last=1000", page.replacen("http", "ws", 1));
    let mut request = socket.into_client_request().expect("an address");
    let offers = format!("koboshi, ticket.{ticket}");
    request.headers_mut().insert("sec-websocket-protocol", offers.parse().expect("a header"));
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().expect("a header"));
    }
    let stream = TcpStream::connect(ADMIN).await.expect("it listens there");
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(refusal)) => Err(refusal.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

async fn hears<S>(socket: &mut WebSocketStream<S>, is: &str) -> Value
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let all = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let notice: Value = serde_json::from_str(&text).expect("JSON");
                    if notice["is"] == is {
                        return notice;
                    }
                }
                Some(Ok(_)) => {}
                other => panic!("no {is}: {other:?}"),
            }
        }
    };
    tokio::time::timeout(CEILING, all).await.unwrap_or_else(|_| panic!("no {is}"))
}

fn url(world: &World, words: &[&str]) -> String {
    let mut all = vec!["console", "sw1", "--url"];
    all.extend(words);
    world.ok(&all).trim().to_string()
}

#[test]
fn browsers_come_by_tickets_and_programs_by_sockets() {
    in_world("", vec![], async |mut world| {
        let folder = world.site.parent().expect("a folder").to_path_buf();
        std::fs::write(&world.site, site(&folder)).expect("written");
        let listener = UnixListener::bind(folder.join("sw1.sock")).expect("a socket");
        world.serve().await;
        let mut machine = listener.accept().await.expect("it comes").0;

        let page = world.curl(&format!("http://{ADMIN}/console/sw1"));
        assert!(page.contains("/web/xterm.js"), "{page}");
        assert!(world.curl(&format!("http://{ADMIN}/web/xterm.js")).len() > 100_000);
        let first = url(&world, &[]);
        assert!(first.starts_with(&format!("http://{ADMIN}/console/sw1#")), "{first}");
        let ours = format!("http://{ADMIN}");
        assert_eq!(opens(&first, Some("http://evil.example")).await.err(), Some(403));
        assert_eq!(opens(&first, Some("null")).await.err(), Some(403));
        let mut alice = opens(&first, Some(&ours)).await.expect("its own page");
        let hello = hears(&mut alice, "hello").await;
        assert_eq!((&hello["machine"], &hello["types"]), (&"sw1".into(), &true.into()));
        assert_eq!(opens(&first, Some(&ours)).await.err(), Some(403), "it was used");
        let other = first.replace("/sw1#", "/sw2#");
        assert_eq!(opens(&other, None).await.err(), Some(403));
        let wrong = format!("{ours}/console/sw1#00112233445566778899aabbccddeeff");
        assert_eq!(opens(&wrong, None).await.err(), Some(403));

        alice.send(Message::Text(r#"{"want":"ask"}"#.into())).await.expect("sent");
        hears(&mut alice, "done").await;
        alice.send(Message::Binary(b"ls\r".as_slice().into())).await.expect("sent");
        reads(&mut machine, "ls\r").await;
        let table = world.ok(&["console"]);
        assert!(table.contains("root (web from 127.0.0.1), "), "{table}");
        let mut eve = opens(&url(&world, &["--watch"]), None).await.expect("a program");
        assert_eq!(hears(&mut eve, "hello").await["types"], false);
        eve.send(Message::Text(r#"{"want":"take"}"#.into())).await.expect("sent");
        assert_eq!(
            hears(&mut eve, "refused").await["why"],
            "you may watch this line, and not type"
        );

        // The same protocol on the API's socket.
        let api = UnixStream::connect(world.state.join("koboshi.sock")).await.expect("it listens");
        let address = "ws://koboshi/api/v1/console/attach?who=sw1&last=0";
        let (mut bob, _) = client_async(address, api).await.expect("a WebSocket");
        assert_eq!(hears(&mut bob, "hello").await["holder"]["name"], "root");

        // A program's socket: bytes, and a word where they cannot be typed.
        let path = world.state.join("consoles/sw1/line.sock");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).expect("it is there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        let mut program = UnixStream::connect(&path).await.expect("it listens");
        people(&mut bob, 4).await;
        machine.write_all(b"login: ").await.expect("it is read");
        reads(&mut program, "login: ").await;
        program.write_all(b"root\r").await.expect("it is read");
        let mut said = String::new();
        program.read_to_string(&mut said).await.expect("words");
        assert_eq!(said, "\r\nkoboshi: root (web from 127.0.0.1) has the line\r\n");
        drop(alice);
        let mut program = UnixStream::connect(&path).await.expect("it listens");
        let begun = Instant::now();
        while world.json(&["console"])[0].get("holder").is_some() {
            assert!(begun.elapsed() < CEILING, "who went away has the line");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        program.write_all(b"root\r").await.expect("it is read");
        reads(&mut machine, "root\r").await;
        assert!(world.stop().await);
    });
}

/// Waits until so many are at the line.
async fn people(socket: &mut WebSocketStream<UnixStream>, many: usize) {
    let begun = Instant::now();
    loop {
        socket.send(Message::Text(r#"{"want":"who"}"#.into())).await.expect("sent");
        let here = hears(socket, "people").await;
        if here["people"].as_array().is_some_and(|people| people.len() == many) {
            return;
        }
        assert!(begun.elapsed() < CEILING, "{here}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! Clients that mean no good: keys without end, connections that say nothing, floods, and requests that are odd.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::ChannelMsg;
use russh::client::{self, AuthResult};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::rig::{CEILING, World};
use crate::seat::{Anybody, log_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_wrong_keys_keep_nobody_out() {
    let world = World::new(&[("alice", "")]).await;
    let tried = try_keys(world.at, 0).await;
    assert!((20..=21).contains(&tried), "the last answer is the end of the connection: {tried}");
    let tries: Vec<_> = (1..50).map(|nth| tokio::spawn(try_keys(world.at, nth))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("alice (ssh from 127.0.0.1) holds the line").await;
    for tried in tries {
        let tried = tokio::time::timeout(CEILING, tried).await.expect("it ends").unwrap();
        assert!(tried < 20, "they are answered slowly, and cut off: {tried}");
    }
    assert_eq!(world.noted("not among the authorized keys"), 1, "{:?}", world.rack.notes);
    alice.types(b"\x1d.").await;
    assert_eq!(alice.leaves().await, 0);
}

/// Tries one key after the other, forty of them; how many were answered.
async fn try_keys(at: SocketAddr, connection: u32) -> usize {
    let config = Arc::new(client::Config::default());
    let Ok(mut handle) = client::connect(config, at, Anybody).await else { return 0 };
    let mut tried = 0;
    for nth in 0..40u32 {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&[connection.to_be_bytes(), nth.to_be_bytes()].concat());
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        match handle.authenticate_publickey("m01", key).await {
            Ok(AuthResult::Success) => panic!("a wrong key let somebody in"),
            Ok(_) => tried += 1,
            Err(_) => break,
        }
    }
    tried
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_cut_off_after_a_while() {
    let world = World::new(&[("alice", "")]).await;
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(TcpStream::connect(world.at).await.unwrap());
    }
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("alice (ssh from 127.0.0.1) holds the line").await;
    // The oldest made room; the others had their time.
    let mut buffer = Vec::new();
    for (nth, stream) in open.iter_mut().enumerate() {
        let begun = Instant::now();
        let read = tokio::time::timeout(CEILING, stream.read_to_end(&mut buffer)).await;
        let _reset_is_as_good = read.expect("it is cut off");
        assert!(nth > 8 || begun.elapsed() < Duration::from_secs(3), "{nth}");
    }
    alice.types(b"\x1d.").await;
    assert_eq!(alice.leaves().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_hurt_nobody_but_their_own() {
    let world = World::new(&[("alice", ""), ("bob", "")]).await;
    let m01 = world.machine("m01").clone();
    // Channels: one console at a time, and the door after so many.
    let mut flood = world.stranger().await;
    assert!(log_in(&mut flood, "m01", 1).await);
    let first = flood.channel_open_session().await.expect("one console");
    let mut refused = 0;
    for _ in 0..1000 {
        match flood.channel_open_session().await {
            Ok(_) => panic!("a second console"),
            Err(russh::Error::ChannelOpenFailure(_)) => refused += 1,
            Err(_) => break,
        }
    }
    assert_eq!(refused, 64);
    drop(first);
    // A viewer that never reads.
    let mut stuck = world.stranger().await;
    assert!(log_in(&mut stuck, "m01", 1).await);
    let stuck_channel = stuck.channel_open_session().await.unwrap();
    stuck_channel.exec(true, "watch").await.unwrap();
    let mut bob = world.attach("bob", &["-T"], "m01", &["watch"]);
    m01.says(b"begin ").await;
    bob.sees("begin ").await;
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..8 {
        tokio::time::timeout(CEILING, m01.says(&megabyte))
            .await
            .expect("the line waits for nobody");
    }
    m01.says(b"the end").await;
    bob.sees("the end").await;
    // Who pastes into a line that takes nothing is told, and can still leave.
    m01.told.lock().unwrap().deaf = true;
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("alice (ssh from 127.0.0.1) holds the line").await;
    alice.types(&vec![b'y'; 8 * 1024]).await;
    m01.says(b"still heard").await;
    alice.sees("still heard").await;
    alice.sees("the line takes nothing").await;
    m01.told.lock().unwrap().deaf = false;
    alice.types(b"\r\x1d.").await;
    assert_eq!(alice.leaves().await, 0);
    drop(stuck_channel);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_odd_end_nothing_but_themselves() {
    let world = World::new(&[("alice", "")]).await;
    let mut handle = world.stranger().await;
    assert!(log_in(&mut handle, "m01", 1).await);
    // A channel after the other, on one connection.
    for _ in 0..3 {
        let mut channel = handle.channel_open_session().await.expect("the former one has ended");
        channel.request_pty(true, "xterm", u32::MAX, 0, 0, 0, &[]).await.unwrap();
        channel.set_env(true, "LD_PRELOAD", "/tmp/x.so").await.unwrap();
        channel.window_change(0, u32::MAX, 0, 0).await.unwrap();
        channel.exec(true, vec![0xff; 900]).await.unwrap();
        channel.request_shell(true).await.unwrap();
        let mut status = None;
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::ExitStatus { exit_status } = message {
                status = Some(exit_status);
            }
        }
        assert_eq!(status, Some(1));
    }
    let from: IpAddr = world.at.ip();
    assert_eq!(world.noted(&format!("from {from}")), 0, "nobody came to a console");
}

//! Heads byte by byte, and servers that cut, trickle and say nothing.

use std::net::TcpListener;
use std::thread;

use super::*;

const QUICK: Patience = Patience {
    connect: Duration::from_secs(5),
    head: Duration::from_millis(500),
    body: Duration::from_millis(500),
};

#[test]
fn servers() {
    assert_eq!(Server::parse("http://10.77.0.1:8080").unwrap().0.to_string(), "10.77.0.1:8080");
    assert_eq!(Server::parse("http://10.77.0.1/").unwrap().0.to_string(), "10.77.0.1:80");
    assert_eq!(Server::parse("http://[fd00::1]:8080").unwrap().0.to_string(), "[fd00::1]:8080");
    for bad in [
        "",
        "10.77.0.1",
        "https://10.77.0.1",
        "http://boot:8080",
        "http://10.77.0.1:99999",
        "http://",
    ] {
        assert!(Server::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn heads() {
    let whole =
        b"HTTP/1.1 206 Partial Content\r\ncontent-LENGTH: 5\r\nContent-Range: bytes 5-9/10\r\n\
                  Date: Mon, 23 Nov 2026 08:00:00 GMT\r\nX: \xff\r\n\r\nbody";
    let (head, end) = parse_head(whole).unwrap().unwrap();
    assert_eq!(head.status, 206);
    assert_eq!((head.length, head.range), (Some(5), Some((5, 10))));
    assert_eq!(head.date, Some(1_795_420_800));
    assert_eq!(&whole[end..], b"body");
    for cut in 0..end {
        assert_eq!(parse_head(&whole[..cut]).unwrap(), None, "cut at {cut}");
    }
}

#[test]
fn garbage_is_an_error_and_not_a_head() {
    let table: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        &[b'\0'; 100],
    ];
    for bytes in table {
        assert!(parse_head(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
    }
    let mut endless = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
    endless.resize(HEAD_MAX, b'x');
    assert!(parse_head(&endless).unwrap_err().contains("head is over"));
    let crowd = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
    assert!(parse_head(crowd.as_bytes()).is_err());
}

#[test]
fn ranges() {
    assert_eq!(content_range("bytes 0-0/1"), Some((0, 1)));
    let large = "bytes 5368709120-6442450943/6442450944";
    assert_eq!(content_range(large), Some((5 << 30, 6 << 30)));
    for bad in ["", "bytes */10", "bytes 1-2/*", "lines 1-2/3", "bytes -1-2/3", "bytes 1/3"] {
        assert_eq!(content_range(bad), None, "{bad}");
    }
}

fn serve(answer: &'static [u8], hold: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(answer);
        thread::sleep(hold);
    });
    Server(at)
}

#[test]
fn a_body_is_read_to_its_length_and_not_beyond() {
    let server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfourmore", Duration::ZERO);
    let (head, mut body) = get(server, "/x", 0, QUICK).unwrap();
    let mut text = String::new();
    body.read_to_string(&mut text).unwrap();
    assert_eq!((head.status, text.as_str()), (200, "four"));
}

#[test]
fn a_cut_body_is_an_error() {
    let server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour", Duration::ZERO);
    let (_, mut body) = get(server, "/x", 0, QUICK).unwrap();
    let error = body.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn silence_ends() {
    let server = serve(b"HTTP/1.1 200", Duration::from_secs(3));
    assert_eq!(get(server, "/x", 0, QUICK).unwrap_err().kind(), io::ErrorKind::TimedOut);
    let server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour", Duration::from_secs(3));
    let (_, mut body) = get(server, "/x", 0, QUICK).unwrap();
    assert_eq!(body.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn interim_answers_are_passed_over() {
    let server =
        serve(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Duration::ZERO);
    assert_eq!(post(server, "/report/00", b"{}", QUICK).unwrap().0.status, 204);
}

#[test]
fn chunks_are_refused_where_a_length_is_needed() {
    let server =
        serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Duration::ZERO);
    assert!(get(server, "/x", 0, QUICK).unwrap_err().to_string().contains("chunks"));
}

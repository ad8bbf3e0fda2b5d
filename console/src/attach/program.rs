//! A program at a line, by a stream of bytes and nothing else: it reads what comes from now on, and its first byte asks
//! for the line. Refused, it is told so in a line of words, and the stream ends.

use std::io;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::session::May;
use crate::line::Handle;
use crate::operator::{Person, Visitor};
use crate::scrollback::What;

/// Read at once.
const READ: usize = 4096;

/// Sees to one program until it goes, is refused, or the line is closed.
///
/// # Errors
/// The stream's.
pub async fn program<S>(line: &Handle, person: Person, may: May, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite,
{
    let visitor = line.enter(person, may.ask().is_ok());
    let mut viewer = line.view(0);
    let (from, mut to) = tokio::io::split(stream);
    let says = async {
        // Marks have no place among bytes. What is skipped is skipped.
        while let Some(piece) = viewer.next().await {
            if let What::Text(text) = piece.what {
                to.write_all(&text).await?;
            }
        }
        io::Result::Ok(())
    };
    let refused = tokio::select! {
        said = says => return said,
        refused = types(&visitor, &may, from) => refused?,
    };
    to.write_all(format!("\r\nkoboshi: {refused}\r\n").as_bytes()).await?;
    to.shutdown().await
}

/// Why it types no more. One that only says no more goes on reading.
async fn types(visitor: &Visitor, may: &May, from: impl AsyncRead) -> io::Result<String> {
    let mut from = pin!(from);
    let mut buffer = vec![0; READ];
    let mut asked = false;
    loop {
        let many = from.read(&mut buffer).await?;
        let typed = buffer.get(..many).unwrap_or_default();
        if typed.is_empty() {
            visitor.release();
            return std::future::pending().await;
        }
        if let Err(why) = may.ask() {
            return Ok(why);
        }
        if !std::mem::replace(&mut asked, true)
            && let Err(holder) = visitor.ask()
        {
            return Ok(format!("{} has the line", holder.person));
        }
        if let Err(why) = visitor.send(typed).await {
            return Ok(why.to_string());
        }
    }
}

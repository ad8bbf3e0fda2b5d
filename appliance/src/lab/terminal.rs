//! A terminal on a machine's serial line: raw while attached, restored whatever happens.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

/// Ctrl-], as telnet and virsh have it.
pub const LEAVE: u8 = 0x1d;

/// Copies between this terminal and a line until Ctrl-], the line's end, or a signal.
pub async fn attach(line: impl AsyncBufRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let _raw = Raw::enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = copy(line, tokio::io::stdin(), tokio::io::stdout()) => ended,
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// The loop of [`attach`]. When the keyboard ends (a pipe did) the line is still shown.
async fn copy(
    mut line: impl AsyncBufRead + AsyncWrite + Unpin,
    mut keyboard: impl AsyncReadExt + Unpin,
    mut screen: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut typed = [0; 256];
    let mut typing = true;
    loop {
        tokio::select! {
            piece = line.fill_buf() => {
                let piece = piece?;
                if piece.is_empty() {
                    return Ok(());
                }
                screen.write_all(piece).await?;
                screen.flush().await?;
                let length = piece.len();
                line.consume(length);
            }
            length = keyboard.read(&mut typed), if typing => match length? {
                0 => typing = false,
                length => {
                    let keys = &typed[..length];
                    let leave = keys.iter().position(|key| *key == LEAVE);
                    line.write_all(&keys[..leave.unwrap_or(length)]).await?;
                    if leave.is_some() {
                        return Ok(());
                    }
                }
            },
        }
    }
}

/// A terminal in raw mode; its former mode comes back on drop, also when a panic unwinds.
struct Raw {
    former: Option<Termios>,
}

impl Raw {
    fn enter() -> Raw {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Raw { former: None };
        }
        let former = tcgetattr(stdin.as_fd()).ok();
        if let Some(former) = &former {
            let mut raw = former.clone();
            cfmakeraw(&mut raw);
            let _ = tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw);
        }
        Raw { former }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSADRAIN, former);
            // The machine may have left colours on, the cursor hidden, lines unwrapped.
            eprint!("\x1b[0m\x1b[?25h\x1b[?7h\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn ctrl_bracket_leaves_and_what_came_before_it_is_typed() {
        let (ours, mut machine) = UnixStream::pair().expect("a socket pair");
        machine.write_all(b"login: ").await.expect("attached");
        let (mut keys, keyboard) = tokio::io::duplex(64);
        let (screen, mut shown) = tokio::io::duplex(64);
        let copying = tokio::spawn(copy(BufReader::new(ours), keyboard, screen));
        let mut prompt = [0; 7];
        shown.read_exact(&mut prompt).await.expect("shown");
        assert_eq!(&prompt, b"login: ");
        keys.write_all(b"root\r\x03\x1dnot this").await.expect("read");
        copying.await.expect("no panic").expect("left");
        let mut typed = String::new();
        machine.read_to_string(&mut typed).await.expect("hung up");
        assert_eq!(typed, "root\r\x03", "Ctrl-C is the machine's");
    }
}

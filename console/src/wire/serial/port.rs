//! An open serial port: set as it is meant, ours alone, and let go without waiting for anybody.
//!
//! `HUPCL` is off, such that data terminal ready stays when we close or die: a Cisco ends the session of
//! whoever was logged in, a Sun of old stops at its prompt, a modem hangs up. Nothing here drains: behind
//! flow control that holds, `tcdrain` waits for ever and `close` for half a minute.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{ControlModes, InputModes, OptionalActions, SpecialCodeIndex, Termios};
use rustix::termios::{tcgetattr, tcsetattr};
use serialport::{ClearBuffer, SerialPort, TTYPort};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::SerialStream;

use super::held::{Holder, holder};
use super::host::Host;
use super::settings::Port;
use super::uucp::{self, Lock};
use crate::wire::{Flow, NotOpen, Parity, Settings};

/// An open port. It is closed when it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    stream: SerialStream,
    /// A BREAK is being said.
    broken: bool,
    _lock: Option<Lock>,
}

/// What [`open`] made; it becomes [`Open`] within a runtime.
pub(super) struct Opened(TTYPort, Option<Lock>);

/// Opens a device, which may be a link.
pub(super) fn open(host: &Host, path: &Path, port: &Port) -> Result<Opened, NotOpen> {
    let says = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let device = path.canonicalize().map_err(|why| match why.kind() {
        io::ErrorKind::NotFound => NotOpen::Unplugged(says(&"it is not there: not plugged in?")),
        _ => NotOpen::Here(says(&why)),
    })?;
    let lock = uucp::take(host, &device).map_err(|who| taken(path, &device, &who, false))?;
    match holder(host, &device) {
        Some(Holder::Other { who, getty }) => return Err(taken(path, &device, &who, getty)),
        Some(Holder::Own) => {
            return Err(NotOpen::Here(says(&"another line of this site has it")));
        }
        None => {}
    }
    let busy = || taken(path, &device, "another process, which is not ours to see,", false);
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(&device, flags, Mode::empty()).map_err(|why| match why {
        Errno::BUSY => busy(),
        Errno::NOENT | Errno::NXIO | Errno::NODEV => {
            NotOpen::Unplugged(says(&"it is not there: not plugged in?"))
        }
        Errno::ACCESS | Errno::PERM => NotOpen::Here(denied(path, &device)),
        why => NotOpen::Here(says(&why)),
    })?;
    let mut meant = tcgetattr(&file).map_err(|why| match why {
        Errno::NOTTY => NotOpen::Here(says(&"it is no serial port")),
        Errno::IO => NotOpen::Here(says(&"there is no hardware behind it")),
        why => NotOpen::Here(says(&why)),
    })?;
    // Ours alone: TIOCEXCL against whoever opens it later, flock against those who ask.
    let name = device.to_string_lossy();
    let tty =
        TTYPort::open(&serialport::new(name, port.settings.speed)).map_err(|why| {
            match why.kind() {
                serialport::ErrorKind::NoDevice => busy(),
                _ => NotOpen::Here(says(&why)),
            }
        })?;
    set(&mut meant, &port.settings);
    tcsetattr(&file, OptionalActions::Now, &meant).map_err(|why| {
        NotOpen::Here(says(&format!("it cannot be set to {}: {why}", port.settings)))
    })?;
    let is = tcgetattr(&file).map_err(|why| NotOpen::Unplugged(says(&why)))?;
    refused(&meant, &is, &port.settings).map_err(|why| NotOpen::Here(says(&why)))?;
    Ok(Opened(tty, lock))
}

/// Raw, as it is meant, with marks for what is damaged.
fn set(termios: &mut Termios, port: &Settings) {
    termios.make_raw();
    termios.input_modes |= InputModes::PARMRK | InputModes::INPCK;
    termios.input_modes -= InputModes::IXON | InputModes::IXOFF | InputModes::IXANY;
    termios.control_modes |= ControlModes::CREAD | ControlModes::CLOCAL;
    termios.control_modes -= ControlModes::HUPCL
        | ControlModes::CRTSCTS
        | ControlModes::CSTOPB
        | ControlModes::PARENB
        | ControlModes::PARODD
        | ControlModes::CMSPAR
        | ControlModes::CSIZE;
    termios.control_modes |= match port.bits {
        5 => ControlModes::CS5,
        6 => ControlModes::CS6,
        7 => ControlModes::CS7,
        _ => ControlModes::CS8,
    };
    termios.control_modes |= match port.parity {
        Parity::None => ControlModes::empty(),
        Parity::Odd => ControlModes::PARENB | ControlModes::PARODD,
        Parity::Even => ControlModes::PARENB,
    };
    if port.stop == 2 {
        termios.control_modes |= ControlModes::CSTOPB;
    }
    match port.flow {
        None | Some(Flow::None) => {}
        Some(Flow::RtsCts) => termios.control_modes |= ControlModes::CRTSCTS,
        Some(Flow::XonXoff) => termios.input_modes |= InputModes::IXON | InputModes::IXOFF,
    }
    termios.special_codes[SpecialCodeIndex::VMIN] = 1;
    termios.special_codes[SpecialCodeIndex::VTIME] = 0;
    // Any whole number is a speed to Linux, so this never fails.
    let _any_speed_fits = termios.set_speed(port.speed);
}

/// A driver that cannot do what it is told does something else and says well.
fn refused(meant: &Termios, is: &Termios, port: &Settings) -> Result<(), String> {
    let speed = is.output_speed();
    if speed.abs_diff(port.speed) > port.speed / 33 {
        return Err(format!("it cannot go at {}: {speed} is what it made of it", port.speed));
    }
    let frame =
        ControlModes::CSIZE | ControlModes::CSTOPB | ControlModes::PARENB | ControlModes::PARODD;
    // A pseudo-terminal has no frame at all: always CS8, no parity.
    if (meant.control_modes ^ is.control_modes).intersects(frame) {
        let shape = Settings { flow: None, ..*port };
        return Err(format!("its driver cannot do {shape}"));
    }
    if (meant.control_modes ^ is.control_modes).contains(ControlModes::CRTSCTS) {
        return Err("its driver has no rtscts".to_string());
    }
    Ok(())
}

fn taken(path: &Path, device: &Path, who: &str, getty: bool) -> NotOpen {
    let name = device.file_name().map(|name| name.to_string_lossy().into_owned());
    let help = match (getty, name) {
        (true, Some(name)) => {
            format!(
                ": it asks for a login there, and the two would each get half; \
                 systemctl disable --now serial-getty@{name} makes it let go"
            )
        }
        _ => String::new(),
    };
    NotOpen::Away(format!("{}: {who} has it{help}", path.display()))
}

fn denied(path: &Path, device: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let group = std::fs::metadata(device).ok().map(|meta| nix::unistd::Gid::from_raw(meta.gid()));
    let group = group.and_then(|gid| nix::unistd::Group::from_gid(gid).ok().flatten());
    let group = group.map_or_else(|| "dialout".to_string(), |group| group.name);
    let says = "may not be opened by this user: the appliance's must be in the group";
    format!("{} {says} {group}", path.display())
}

impl Opened {
    /// To be called within a runtime.
    pub fn into_open(self) -> io::Result<Open> {
        let Opened(tty, lock) = self;
        let stream = SerialStream::try_from(tty).map_err(io::Error::other)?;
        Ok(Open { stream, broken: false, _lock: lock })
    }
}

impl Open {
    /// Begins to say BREAK, or ends it.
    pub fn say_break(&mut self, broken: bool) -> serialport::Result<()> {
        match broken {
            true => self.stream.set_break()?,
            false => self.stream.clear_break()?,
        }
        self.broken = broken;
        Ok(())
    }

    /// Sets data terminal ready.
    pub fn dtr(&mut self, up: bool) -> serialport::Result<()> {
        self.stream.write_data_terminal_ready(up)
    }

    /// Sets request to send.
    pub fn rts(&mut self, up: bool) -> serialport::Result<()> {
        self.stream.write_request_to_send(up)
    }

    /// Characters that the kernel has and the port did not send yet.
    pub fn unsent(&self) -> u32 {
        self.stream.bytes_to_write().unwrap_or(0)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.broken {
            let _it_may_be_gone = self.stream.clear_break();
        }
        let _it_may_be_gone = self.stream.clear(ClearBuffer::Output);
    }
}

impl AsyncRead for Open {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Open {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// The stream's own would drain.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

//! What makes BMCs that can be asked: a socket each, a task each, all on a few threads of their own, so that
//! whoever holds a [`Sim`] may block as it likes.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::bmc::Bmc;
use crate::chassis::Order;
use crate::config::{Config, Host};
use crate::line::SerialPort;
use crate::machine::Machine;
use crate::vm::{self, Link};
use crate::{line, process, sol};

/// Datagrams read before anything else is looked at.
const BURST: usize = 64;
/// Where nothing is due, a look around every so often.
const QUIET: Duration = Duration::from_secs(3600);

/// BMCs that run until this is dropped, and the machines behind them with them.
#[derive(Debug)]
pub struct Sim {
    cells: Vec<Arc<Cell>>,
    stop: watch::Sender<()>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// One BMC as its tasks share it.
#[derive(Debug)]
pub(crate) struct Cell {
    machine: Mutex<Machine>,
    address: SocketAddr,
    /// The state changed from outside the port's task.
    pub(crate) poked: Notify,
    /// There are orders for the process.
    pub(crate) ordered: Notify,
    /// There is something for the serial line, or room for what it says.
    pub(crate) line: Notify,
    /// The serial line waits for room.
    pub(crate) starved: AtomicBool,
    /// The virtual machine on the host's own interface.
    pub(crate) vm: Link,
}

/// A BMC with its sockets, on the way to its thread.
struct Bound {
    cell: Arc<Cell>,
    socket: UdpSocket,
    vm: Option<TcpListener>,
}

impl Cell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look<T>(&self, look: impl FnOnce(&mut Bmc) -> T) -> T {
        let seen = look(&mut self.lock().bmc);
        self.poked.notify_one();
        seen
    }
}

impl Sim {
    /// Runs one BMC.
    pub fn start(config: Config) -> io::Result<Sim> {
        Sim::fleet(vec![config], 1)
    }

    /// Runs many, on so many threads.
    pub fn fleet(configs: Vec<Config>, threads: usize) -> io::Result<Sim> {
        let now = Instant::now();
        let mut bound = Vec::with_capacity(configs.len());
        for mut config in configs {
            let failed = |error: io::Error| {
                io::Error::new(error.kind(), format!("listening on {}: {error}", config.listen))
            };
            let socket = UdpSocket::bind(config.listen).map_err(failed)?;
            socket.set_nonblocking(true)?;
            let vm = config.vm.map(TcpListener::bind).transpose()?;
            if let Some(vm) = &vm {
                vm.set_nonblocking(true)?;
            }
            // SOL is told to come to this port too.
            config.listen = socket.local_addr()?;
            let cell = Arc::new(Cell {
                address: config.listen,
                machine: Mutex::new(Machine::new(config, now)),
                poked: Notify::new(),
                ordered: Notify::new(),
                line: Notify::new(),
                starved: AtomicBool::new(false),
                vm: Link::default(),
            });
            bound.push(Bound { cell, socket, vm });
        }
        let cells = bound.iter().map(|one| Arc::clone(&one.cell)).collect();
        let (stop, stopped) = watch::channel(());
        let mut sim = Sim { cells, stop, threads: Vec::new() };
        let mut shares: Vec<Vec<Bound>> = Vec::new();
        shares.resize_with(threads.max(1), Vec::new);
        for (n, one) in bound.into_iter().enumerate() {
            let share = n % shares.len();
            shares[share].push(one);
        }
        for share in shares {
            let stopped = stopped.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = thread::Builder::new()
                .name("bmcsim".into())
                .spawn(move || runtime.block_on(serve_all(share, stopped)))?;
            sim.threads.push(thread);
        }
        Ok(sim)
    }

    /// Where the first one listens.
    ///
    /// # Panics
    /// If there is none.
    pub fn addr(&self) -> SocketAddr {
        self.cells[0].address
    }

    /// Where all of them listen.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.cells.iter().map(|cell| cell.address)
    }

    /// Looks at the first one's state, or changes it.
    ///
    /// # Panics
    /// If there is none.
    pub fn with<T>(&self, look: impl FnOnce(&mut Bmc) -> T) -> T {
        self.cells[0].look(look)
    }

    /// The same with the one that listens there. `None`: none does.
    pub fn with_at<T>(&self, address: SocketAddr, look: impl FnOnce(&mut Bmc) -> T) -> Option<T> {
        Some(self.at(address)?.look(look))
    }

    /// What is to be done to a machine that is [`Host::Elsewhere`], in order, as soon as there is something;
    /// may be given up while it waits. `None`: no BMC listens there.
    pub async fn orders(&self, address: SocketAddr) -> Option<Vec<Order>> {
        let cell = self.at(address)?;
        loop {
            let orders: Vec<Order> = cell.lock().bmc.chassis.orders.drain(..).collect();
            if !orders.is_empty() {
                return Some(orders);
            }
            cell.ordered.notified().await;
        }
    }

    /// The host's end of a serial line that is [`Serial::Elsewhere`](crate::config::Serial::Elsewhere). `None`: no BMC listens there.
    pub fn serial(&self, address: SocketAddr) -> Option<SerialPort> {
        self.at(address).map(SerialPort::of)
    }

    fn at(&self, address: SocketAddr) -> Option<&Arc<Cell>> {
        self.cells.iter().find(|cell| cell.address == address)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

async fn serve_all(share: Vec<Bound>, mut stopped: watch::Receiver<()>) {
    let mut tasks = JoinSet::new();
    for Bound { cell, socket, vm } in share {
        let (host, serial) = {
            let machine = cell.lock();
            (machine.bmc.config.host.clone(), machine.bmc.config.serial.clone())
        };
        if let Host::Process { start, monitor } = host {
            tasks.spawn(process::run(Arc::clone(&cell), start, monitor));
        }
        if serial.is_socket() {
            tasks.spawn(line::run(Arc::clone(&cell), serial));
        }
        if let Some(vm) = vm {
            tasks.spawn(vm::run(Arc::clone(&cell), vm));
        }
        tasks.spawn(async move {
            if let Err(error) = serve(&cell, socket).await {
                tracing::error!(address = %cell.address, %error, "a BMC lost its socket");
            }
        });
    }
    // Dropping the tasks kills the processes.
    let _ = stopped.changed().await;
}

async fn serve(cell: &Cell, socket: UdpSocket) -> io::Result<()> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut buffer = [0; 2048];
    loop {
        let deadline = settle(cell, &socket);
        let due = deadline.unwrap_or_else(|| Instant::now() + QUIET);
        tokio::select! {
            ready = socket.readable() => ready?,
            () = tokio::time::sleep_until(due.into()) => {}
            () = cell.poked.notified() => {}
        }
        let mut machine = cell.lock();
        let now = Instant::now();
        for _ in 0..BURST {
            // A datagram beyond the buffer is cut: none that IPMI knows is.
            let Ok((length, peer)) = socket.try_recv_from(&mut buffer) else { break };
            machine.receive(peer, &buffer[..length], now);
        }
    }
}

/// Lets fire what is due, hands out what there is, and says when to come again.
fn settle(cell: &Cell, socket: &tokio::net::UdpSocket) -> Option<Instant> {
    let mut machine = cell.lock();
    machine.poll(Instant::now());
    while let Some(datagram) = machine.transmit() {
        // A full buffer loses it, as a wire would.
        let _ = socket.try_send_to(&datagram.bytes, datagram.peer);
    }
    if !machine.bmc.chassis.orders.is_empty() {
        cell.ordered.notify_one();
    }
    let has_room = || cell.starved.load(Ordering::Relaxed) && sol::room(&machine.bmc) > 0;
    if machine.bmc.config.serial.is_socket() && (!machine.bmc.sol.to_host.is_empty() || has_room())
    {
        cell.line.notify_one();
    }
    machine.deadline()
}

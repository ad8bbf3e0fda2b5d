//! `koboshi serve`: everything stood up in order, each service in one set of tasks. One of them
//! dying ends the process, loudly: a machine that gets half an answer is worse off than one that
//! gets none and asks again.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use koboshi_console::watch::Found;
use koboshi_images::Store as Images;
use koboshi_initramfs::contract;
use koboshi_pxe::boots::{Boot, Stage};
use koboshi_pxe::desk::Desk;
use koboshi_pxe::seats::Holder;
use koboshi_pxe::{Content, dhcp, http, tftp};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Counters, Reloaded};
use crate::bmcs::Bmcs;
use crate::diagnosis::Learned;
use crate::diagnosis::learned::Lesson;
use crate::holds::Keeper;
use crate::home::Homes;
use crate::hostile;
use crate::identify::Identities;
use crate::leases::{self, Leases};
use crate::ledger::{Ledger, Wish};
use crate::lines::Lines;
use crate::ops::setup;
use crate::publish;
use crate::receipts::Receipts;
use crate::rollout::{self, Rollout};
use crate::site::watch::SiteWatcher;
use crate::site::{Mode, Site};
use crate::squasher::Squasher;
use crate::store::{BootRecord, Holding, Store};
use crate::syslog::Syslog;
use crate::tickets::Tickets;
use crate::{
    api, diagnosis, identify, interfaces, keystrokes, plan, programs, ssh, syslog, unwritten, web,
};

/// News of the desk that may wait for the ledger. A storm of 1,000 machines makes about ten each.
const NEWS: usize = 16_384;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// Site file.
    pub site: PathBuf,
    /// State directory.
    pub state: PathBuf,
}

/// Runs until SIGTERM or SIGINT, or until a service dies.
pub async fn serve(options: Options, site: Site) -> anyhow::Result<()> {
    let homes = Homes::of(&site)?;
    let descriptors = raise_descriptors();
    let _lock = lock_state(&options.state)?;
    let store = Store::open(&options.state).context("opening the state")?;
    let site = Arc::new(site);

    // One reading of the site, and the desk that serves it.
    let images_dir = options.state.join("images");
    let images = Images::open(&images_dir).context("opening the image store")?;
    let common = publish::common();
    let holds = Arc::new(Keeper::new(images.clone()));
    let mut lessons = Vec::new();
    let newest = store.newest_boots(|boot| lessons.extend(Lesson::of_kept(boot)));
    let newest = newest.context("reading the boots")?;
    let courses = store.courses().context("reading how versions of images have done")?;
    let rollout = Arc::new(Rollout::restored(courses, &newest));
    let known = BTreeMap::new();
    let reading = publish::held(&holds, || {
        publish::read(site.clone(), &images, &rollout, &homes, &known, 1, common.clone())
    });
    reading.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let (news, news_in) = mpsc::channel(NEWS);
    let planner = reading.planner;
    let desk = Arc::new(Desk::new(reading.snapshot, news));
    restore(&desk, &images, &planner, &newest);
    drop(planner);
    hold(&desk, store.holdings().context("reading the holdings")?, &newest);
    let hardware = store.hardware().context("reading what machines are made of")?;
    let ledger = Ledger::new(store.clone(), newest, hardware);
    let tickets = store.tickets().context("reading the orders")?;
    let ledger = ledger.knowing(Learned::from_boots(lessons)).telling(rollout.clone());
    let ledger = ledger.ordering(tickets, Receipts::of(&options.state), site.name.as_str());
    let ledger = Arc::new(ledger);
    ledger.keep(reading.told).await;
    ledger.orders_in_force(&desk).await;

    let bmcs = Bmcs::remembering(&options.state.join("bmcs"), |text| tracing::warn!("{text}"));
    let bmcs = bmcs.context("reading what is known of BMCs")?;

    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (control, control_in) = mpsc::channel(1024);
    let app = Arc::new(App {
        path: options.site.clone(),
        state: options.state.clone(),
        homes: homes.clone(),
        site: ArcSwap::new(site.clone()),
        pending: ArcSwap::default(),
        watched: ArcSwap::from_pointee(site.watched.clone()),
        desk: desk.clone(),
        ledger: ledger.clone(),
        rollout,
        store: store.clone(),
        holds,
        dhcp: control.clone(),
        common,
        revision: Mutex::new(1),
        counters: Counters::default(),
        bmcs: Arc::new(bmcs),
        lines: Lines::new(site.clone(), &options.state).context("a thread for logs of consoles")?,
        syslog: Syslog::new(&options.state, site.logs.into()).context("a thread for logs")?,
        ssh: ssh::Door::default(),
        identities: Identities::default(),
        tickets: Tickets::default(),
        silent: ArcSwap::default(),
        unreached: ArcSwap::default(),
        cancel: cancel.clone(),
    });

    // Every socket before any service: no machine is sent to a server that is not there yet, and
    // when HTTP answers the others do too.
    let mut doors = Vec::new();
    for http_at in homes.http() {
        let listener = http::bind(http_at, None).with_context(|| format!("HTTP on {http_at}"))?;
        let tftp_at = SocketAddr::from((http_at.ip(), 69));
        let loaders = tftp::bind(tftp_at, None).with_context(|| format!("TFTP on {tftp_at}"))?;
        doors.push((listener, loaders));
    }
    let admin_at = site.admin.listen;
    let admin =
        http::bind(admin_at, None).with_context(|| format!("[admin] listen, {admin_at}"))?;
    let proxy = site.net.mode == Mode::Proxy;
    let wires = homes
        .interfaces()
        .into_iter()
        .map(|interface| dhcp::Wire::open(dhcp::Config { proxy, ..dhcp::Config::on(interface) }));
    let first = thread("dhcp").context("a thread for DHCP")?;
    let wires: Vec<dhcp::Wire> = {
        let _there = first.0.enter();
        wires.collect::<Result<_, _>>().context("DHCP")?
    };
    let routes = http::routes(desk.clone(), contract::REPORT_MAX);
    desk.watches(app.counters.http.clone());
    let share = descriptors / doors.len().max(1);
    for (listener, loaders) in doors {
        let (routes, counted, stop) = (routes.clone(), app.counters.http.clone(), cancel.clone());
        tasks.spawn(async move {
            let limits = http::Limits::default().within(share);
            http::serve(listener, routes, limits, counted, stop).await.context("HTTP")
        });
        let counted = app.counters.tftp.clone();
        let limits = tftp::Limits::default().within(share);
        tasks.spawn(tftp_service(desk.clone(), loaders, limits, counted, cancel.clone()));
    }
    let former = store.leases().context("reading the leases")?;
    let moves = !former.is_empty();
    let (leases, kept) =
        leases::open(&options.state, store.unwritten().clone(), || former.into_iter().collect())
            .context("the journal of leases")?;
    if moves && leases.begun {
        store.forget_leases().await?;
    }
    let service = dhcp_service(desk.clone(), leases, kept, wires, control_in, cancel.clone());
    tasks.spawn_on(service, &first.0);
    let (wishes, wishes_in) = mpsc::channel(4096);
    // The ledger stops last: what the others still hear while they stop is written too.
    let last = CancellationToken::new();
    let mut writes = tokio::spawn(ledger.clone().run(desk, news_in, wishes, last.clone()));
    tasks.spawn(grant(wishes_in, control, app.desk.clone(), cancel.clone()));
    let (api_app, stop) = (app.clone(), cancel.clone());
    tasks.spawn(async move { api::serve(api_app, stop).await.context("the API's socket") });
    let (web_app, stop) = (app.clone(), cancel.clone());
    tasks.spawn(async move { web::serve(web_app, admin, stop).await.context("the admin address") });
    tasks.spawn(watch(app.clone(), images_dir, cancel.clone()));
    tasks.spawn(diagnosis::watch::watch(app.clone(), cancel.clone()));
    tasks.spawn(hostile::watch(app.clone(), cancel.clone()));
    // Nothing else that is done here delays a line.
    let thread = koboshi_console::Thread::start().context("starting the consoles' thread")?;
    tasks.spawn_on(consoles(app.clone(), cancel.clone()), thread.handle());
    tasks.spawn(for_programs(app.clone(), cancel.clone()));
    tasks.spawn(ssh::run(app.clone(), cancel.clone()));
    tasks.spawn(seen(app.clone(), cancel.clone()));
    tasks.spawn(rollout::watch::run(app.clone(), cancel.clone()));
    tasks.spawn(logs(app.clone(), cancel.clone()));
    tasks.spawn(interfaces::watch(app.clone(), cancel.clone()));
    tasks.spawn(setup::follow::run(app.clone(), cancel.clone()));

    let at: Vec<String> = homes.http().iter().map(ToString::to_string).collect();
    let at = at.join(", ");
    let text = format!("serves {} from {at}", site.name);
    ledger.event("start", None, text).await;
    // Not eprintln!, which panics where a log on a full disk takes nothing.
    let ready = format!("koboshi: ready; {} machines, HTTP at {at}\n", site.machines.len());
    std::io::stderr().write_all(ready.as_bytes()).unwrap_or(());
    // The next reading takes its place.
    drop(site);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let result = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hangup.recv() => {
                // Beside the loop: a site file on a network that hangs must not keep us from SIGTERM.
                let app = app.clone();
                tokio::spawn(async move { told(app.reload(false, false).await) });
            }
            () = store.failed() => break Err(anyhow::anyhow!(
                "the state in {} could not be written; see the log", options.state.display()
            )),
            _ = &mut writes => break Err(anyhow::anyhow!("the ledger ended by itself")),
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ok(())) => break Err(anyhow::anyhow!("a service ended by itself")),
                Ok(Err(error)) => break Err(error),
                Err(error) => break Err(anyhow::anyhow!("a service died: {error}")),
            },
        }
    };
    cancel.cancel();
    store.give_up();
    let drain = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), drain).await.is_err() {
        tracing::warn!("a service did not stop in time");
    }
    // A BMC has few sessions, and some keep one that nobody closed for a minute.
    if tokio::time::timeout(Duration::from_secs(5), app.bmcs.close()).await.is_err() {
        tracing::warn!("sessions with BMCs could not all be closed");
    }
    last.cancel();
    if !writes.is_finished() && tokio::time::timeout(Duration::from_secs(5), writes).await.is_err()
    {
        tracing::warn!("the ledger did not write all it heard");
    }
    result
}

/// Each transfer and each connection is a descriptor, and the usual soft limit is 1,024. Says how many there are.
fn raise_descriptors() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(65_536);
        if soft < wanted { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft).unwrap_or(usize::MAX)
}

/// A thread with a runtime of its own, until what comes with it is dropped. Firmware asks for an address and gives up
/// within seconds: thousands of machines that read their roots meanwhile must not be before it at every turn.
fn thread(name: &str) -> std::io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (end, ends) = oneshot::channel::<()>();
    std::thread::Builder::new().name(name.to_string()).spawn(move || {
        let _it_is_dropped = runtime.block_on(ends);
        runtime.shutdown_background();
    })?;
    Ok((handle, end))
}

/// Two appliances on one state directory would both write it.
fn lock_state(state: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::create_dir_all(state)
        .with_context(|| format!("making the state directory {}", state.display()))?;
    let path = state.join("lock");
    let file = std::fs::File::create(&path).map_err(|error| {
        let (path, help) = (path.display(), unwritten::help(&path, &error));
        anyhow::anyhow!("{path} cannot be written ({error}): {help}")
    })?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).with_context(
        || format!("another koboshi serves from {} (its lock is held)", state.display()),
    )?;
    Ok(file)
}

/// Boots that were under way when the last process ended go on with the plans they had.
fn restore(desk: &Desk, images: &Images, planner: &plan::Planner, boots: &[BootRecord]) {
    for record in boots.iter().filter(|record| !record.over && record.stage != Stage::Down) {
        let plan = record.plan.as_ref().map(|plan| {
            let mut plan = plan.as_ref().clone();
            let files = planner.files_again(&plan);
            let whole = plan::refill(&mut plan, |digest| {
                if *digest == planner.common.1 {
                    return Some(Content::Bytes(planner.common.0.clone()));
                }
                if *digest == planner.hosts.1 {
                    return Some(Content::Bytes(planner.hosts.0.clone()));
                }
                if let Some(archive) = files.get(digest) {
                    return Some(archive.clone());
                }
                let path = images.blob_path(&koboshi_images::Digest(*digest));
                let size = std::fs::metadata(&path).ok()?.len();
                Some(Content::File { path: Arc::new(path), size })
            });
            if !whole && record.stage < Stage::Init && !plan.is_bare() {
                tracing::warn!(
                    machine = record.machine,
                    "its boot began under another koboshi: it has to be started again"
                );
            }
            Arc::new(plan)
        });
        // Its true age is not known to a monotonic clock of another process: it counts from now.
        let now = Instant::now();
        let mut boot = Boot::begin(record.id, record.mac, record.address, record.fixed, plan, now);
        boot.stage = record.stage;
        boot.lent = record.lent;
        desk.restore(boot);
    }
}

/// Seats are held over a restart. Where an older koboshi kept boots and no holding, a machine that
/// was promised a seat has it.
fn hold(desk: &Desk, holdings: Vec<Holding>, boots: &[BootRecord]) {
    let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
    for held in holdings {
        let record = boots.iter().find(|boot| boot.id == held.boot);
        let place = record.map(|boot| (boot.mac, boot.address)).or(held.at);
        let Some((mac, address)) = place else {
            tracing::warn!(seat = held.seat, "who holds it is not known any more: it is free");
            continue;
        };
        let heard = record.filter(|boot| boot.stage >= Stage::Init);
        desk.holds(Holder {
            seat: held.seat,
            address,
            machine: held.machine,
            mac,
            boot: held.boot,
            since: at(record.map_or(held.since, |boot| boot.opened)),
            heard: heard.and_then(|boot| boot.marks.last()).map(|mark| at(mark.at)),
            down: record.is_some_and(|boot| boot.stage == Stage::Down),
        });
    }
    for boot in boots.iter().filter(|boot| !boot.over) {
        let Some(seat) = boot.plan.as_ref().and_then(|plan| plan.seat.clone()) else { continue };
        let heard = boot.marks.last().filter(|_| boot.stage >= Stage::Init);
        let holder = Holder {
            seat,
            address: boot.address,
            machine: boot.machine.clone(),
            mac: boot.mac,
            boot: boot.id,
            since: at(boot.opened),
            heard: heard.map(|mark| at(mark.at)),
            down: boot.stage == Stage::Down,
        };
        if !desk.holds(holder) {
            tracing::warn!(machine = boot.machine, "another machine holds the seat it booted into");
        }
    }
}

async fn tftp_service(
    desk: Arc<Desk>,
    socket: UdpSocket,
    limits: tftp::Limits,
    counters: Arc<tftp::Counters>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let (files, boots) = (desk.clone(), desk.clone());
    let server = tftp::Server {
        lookup: Arc::new(move |peer, name| files.file(name, peer.ip())),
        expected: Arc::new(move |peer| boots.boots_at(peer)),
        tell: Arc::new(move |event| desk.tftp_event(&event)),
        limits,
        counters,
        device: None,
    };
    tftp::serve(socket, server, cancel).await.context("TFTP")
}

async fn dhcp_service(
    desk: Arc<Desk>,
    leases: Leases,
    kept: dhcp::Kept,
    wires: Vec<dhcp::Wire>,
    control: mpsc::Receiver<dhcp::Control>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let now = dhcp::Now::read();
    let mut server = dhcp::Server::restore(kept, now);
    // No reading of the site is kept for longer than it is looked at.
    {
        let site = desk.site();
        let stranger = |lease: &dhcp::LeaseRecord| {
            let mac = lease.key.mac;
            let known = site.machines.contains_key(&mac) || site.bmcs.contains_key(&mac);
            site.subnet_of(lease.address).filter(|_| !known).cloned()
        };
        server.count_strangers(stranger, now);
        let reserved = site.networks.iter().flat_map(|one| one.subnet.reserved.iter());
        server.had(reserved.copied(), now);
    }
    let hears = desk.clone();
    let decide = move |request: &dhcp::Request| desk.dhcp(request);
    let tell = move |event: dhcp::Event| hears.dhcp_event(&event);
    let Leases { journal, ended, .. } = leases;
    let served = dhcp::serve(wires, server, decide, tell, journal, control, cancel).await;
    // Its thread may have died, which is told by then.
    drop(ended.await);
    served.context("DHCP")
}

async fn grant(
    mut wishes: mpsc::Receiver<Wish>,
    control: mpsc::Sender<dhcp::Control>,
    desk: Arc<Desk>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    // The ledger, whose wishes they are, stops after DHCP, by whom they are granted.
    while let Some(Some(wish)) = cancel.run_until_cancelled(wishes.recv()).await {
        let control_for = match wish {
            Wish::Keep(mac) => dhcp::Control::Keep(mac),
            Wish::Look { holder, machine, macs } => {
                let (told, seen) = oneshot::channel();
                let (address, desk) = (holder.address, desk.clone());
                let wire = desk.site().subnet_of(address).map_or(0, |subnet| subnet.wire);
                tokio::spawn(async move {
                    // An error: nobody could be asked, which proves nothing.
                    if let Ok(None) = seen.await {
                        let why = format!(
                            "nobody answers at {address}: it moves from {} to {machine}",
                            holder.machine
                        );
                        desk.vacate(&holder, why);
                    }
                });
                dhcp::Control::Look { wire, address, not: macs, seen: told }
            }
        };
        if control.send(control_for).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn for_programs(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    tokio::join!(programs::run(app.clone(), cancel.clone()), keystrokes::run(app, cancel));
    Ok(())
}

async fn consoles(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    app.lines.run(app.bmcs.clone(), app.ledger.clone(), cancel).await;
    Ok(())
}

async fn logs(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    syslog::run(app, cancel).await;
    Ok(())
}

/// Tells what is seen on consoles.
async fn seen(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    let (found, watching) = app.lines.found();
    let Some(mut found) = found else { return Ok(()) };
    while let Some(Some(Found { line, hit })) = cancel.run_until_cancelled(found.recv()).await {
        app.ledger.on_console(&line, &hit).await;
        let lost = watching.lost();
        if lost > 0 {
            let text =
                format!("{lost} more things were seen on consoles than could be written down");
            app.ledger.event("console", None, text).await;
        }
    }
    Ok(())
}

/// Rereads the site file when it changes, and looks for images when their index does.
async fn watch(app: Arc<App>, images: PathBuf, cancel: CancellationToken) -> anyhow::Result<()> {
    let started = SiteWatcher::start(&app.watched.load());
    let (watcher, mut changes) = started.context("watching the site file")?;
    // What was saved between the first reading and the first watch.
    told(app.reload(false, false).await);
    let index = images.join("index.json");
    let stamp = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let mut known = stamp(&index);
    let mut squasher = Squasher::new(app.clone(), images);
    let mut beat = 0u64;
    let mut weighed = (0, 0);
    let mut identifying: Option<tokio::task::JoinHandle<()>> = None;
    let mut look = tokio::time::interval(Duration::from_secs(1));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            change = changes.recv() => match change {
                Some(_) => {
                    told(app.reload(false, false).await);
                    watcher.follow(&app.watched.load());
                }
                None => bail!("the watch on the site file ended"),
            },
            _ = look.tick() => {
                if beat.is_multiple_of(5)
                    && let Some(applied) = app.look_again().await
                {
                    told(applied);
                }
                beat += 1;
                let changes = (app.ledger.hardware_changes(), *app.revision.lock().await);
                if changes != weighed {
                    weighed = changes;
                    app.weigh_evidence().await;
                }
                // BMCs may be silent: they are asked beside the clock.
                if beat.is_multiple_of(5)
                    && identifying.as_ref().is_none_or(tokio::task::JoinHandle::is_finished)
                {
                    let app = app.clone();
                    identifying = Some(tokio::spawn(async move { identify::look(&app).await }));
                }
                app.ledger.look_at_clock().await;
                squasher.look().await;
                app.hold().await;
                for over in app.store.unwritten().over() {
                    app.ledger.event("disk", None, over.lasted(crate::ledger::now_ms())).await;
                }
                app.ledger.forget_tickets(&app.desk).await;
                let now = stamp(&index);
                if now != known {
                    known = now;
                    app.republish().await;
                }
            }
        }
    }
}

fn told(reloaded: Reloaded) {
    match reloaded {
        Reloaded::Same => {}
        Reloaded::Applied { changes, .. } => tracing::info!("site: {}", changes.join("; ")),
        Reloaded::Waits { reasons } => {
            tracing::warn!("a reload waits for `koboshi reload --accept`: {}", reasons.join("; "));
        }
        Reloaded::Refused { report, .. } => {
            tracing::error!("the site file is refused, the former site stays:\n{report}");
        }
    }
}

//! `proxymatic run`: puts the agent together, and says when to stop.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proxymatic_common::maps::{Backends, MapDef as _, Services, Slots};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    Health, PinArgs,
    config::{self, Config, LoopbackArg},
    sources::SourceArgs,
};
use crate::{
    agent::{Agent, Event},
    dataplane::kernel::Kernel,
    source::SourceId,
    surface,
};

/// What `run` takes. Names, variables and defaults that `meltwater/proxymatic` had are kept.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) sources: SourceArgs,
    /// Log every map write too.
    #[arg(long, env = "VERBOSE")]
    pub(super) verbose: bool,
    /// The cgroup2 folder whose sockets are served [default: the root of the host's tree].
    #[arg(long, value_name = "DIR", env = "CGROUP")]
    pub(super) cgroup: Option<PathBuf>,
    /// From which network namespaces localhost leads to services.
    #[arg(long, value_enum, default_value = "host", env = "LOOPBACK")]
    pub(super) loopback: LoopbackArg,
    /// How many services fit. Maps that are pinned already keep their size.
    #[arg(long, value_name = "N", default_value_t = Services::MAX)]
    pub(super) max_services: u32,
    /// How many backends fit.
    #[arg(long, value_name = "N", default_value_t = Backends::MAX)]
    pub(super) max_backends: u32,
    /// How many slots fit: one for each backend where weights are equal.
    #[arg(long, value_name = "N", default_value_t = Slots::MAX)]
    pub(super) max_slots: u32,
}

/// How often the agent looks round: heartbeat, quarantine, addresses.
const TICK: Duration = Duration::from_secs(1);

pub(super) fn run(args: Args, pins: &PinArgs) -> anyhow::Result<Health> {
    let config = config::check(&args, pins).map_err(|wrong| anyhow::anyhow!(wrong.join("\n            ")))?;
    die_whole();
    start_log(config.verbose);
    let kernel = Kernel::start(&config.kernel)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(serve(config, kernel))?;
    Ok(Health::Well)
}

/// A panic in one task would leave an agent that looks alive and follows nothing. Better dead: the data plane goes on,
/// and whoever supervises the agent starts it again.
fn die_whole() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn start_log(verbose: bool) {
    let level = if verbose { tracing::Level::DEBUG } else { tracing::Level::INFO };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let filter = tracing_subscriber::EnvFilter::new(format!("warn,proxymatic={level},proxymatic_user={level}"));
    // A second start in one process is a test's; the first log is as good.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).try_init();
}

async fn serve(mut config: Config, kernel: Kernel) -> anyhow::Result<()> {
    let (events, inbox) = mpsc::channel(64);
    let agent = Agent::adopt(kernel, &config.sources.ids())?;
    if let Some(marathon) = &mut config.sources.marathon {
        marathon.adopted = agent.adopted(SourceId::Marathon);
    }
    tracing::info!(
        "attached; adopted {} services, {} backends; reading {}",
        agent.tables().frontends().len(),
        agent.tables().backends().len(),
        config.sources
    );
    let (status, latest) = watch::channel(agent.status(Instant::now()));
    surface::serve(&config.socket, latest)
        .await
        .with_context(|| format!("cannot listen on {}; name another path with --socket", config.socket.display()))?;
    let (reports, heard) = mpsc::channel(8);
    config.sources.start(&reports);
    tokio::spawn(pass_on(heard, events.clone()));
    tokio::spawn(tick(events.clone()));
    tokio::spawn(stop_on_signal(events)?);
    agent.run(inbox, status).await;
    // The pins stay; the socket would only lead nowhere.
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

async fn pass_on(mut heard: mpsc::Receiver<crate::source::Report>, events: mpsc::Sender<Event>) {
    while let Some(report) = heard.recv().await {
        if events.send(Event::Source(report)).await.is_err() {
            return;
        }
    }
}

async fn tick(events: mpsc::Sender<Event>) {
    let mut clock = interval(TICK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let addresses = match addresses() {
            Ok(addresses) => events.send(Event::Addresses(addresses)).await,
            // The last ones stay.
            Err(error) => {
                tracing::warn!("cannot read the addresses of this host: {error}");
                Ok(())
            }
        };
        if addresses.is_err() || events.send(Event::Tick).await.is_err() {
            return;
        }
    }
}

/// The IPv4 addresses of this host, loopback left out: the hooks know those.
pub(super) fn addresses() -> nix::Result<BTreeSet<IpAddr>> {
    let all = nix::ifaddrs::getifaddrs()?;
    let four = all.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    Ok(four.filter(|address| !address.is_loopback()).map(IpAddr::V4).collect())
}

/// Handlers are in place when this returns: a signal that comes earlier than the future runs is not lost.
fn stop_on_signal(events: mpsc::Sender<Event>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        tracing::info!("{name}: leaving; the data plane stays (`proxymatic detach` removes it)");
        let _ = events.send(Event::Stop).await;
    })
}

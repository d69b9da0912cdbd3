//! `fairway run`: wires everything once, in the order in which nothing can be half done, and ends it together.
//! When any task ends unasked, the rest is drained and the process exits non-zero; the kernel goes on.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use dns::Names;
use model::{Kind, Snapshot};
use prometheus_client::registry::Registry;
use proxy::{Proxy, Sizes};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::server::{self, Listener};
use crate::cli::{NodeRouteMode, PacketPath, RunArgs, Switch};
use crate::facts::{self, Facts};
use crate::handover::{self, Door, Predecessor, Successor};
use crate::health::{self, Health};
use crate::name_args::PodNames;
use crate::names::{self, Answering};
use crate::network::{self, Keeper, Prepared, Settled};
use crate::notice::Notices;
use crate::reported::Reported;
use crate::source::{Reports, SourceConfig, manifests};
use crate::state::{NodeSettings, State};
use crate::step::{Progress, Stepper};
use crate::{cluster, source, sweep};

/// Two cores must do for a node, and the daemon is not what it is there for.
const WORKERS: usize = 2;
/// How long tasks may take to end once asked.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the Services may take to be listed before the cluster DNS address is taken from the options.
const DNS_PATIENCE: Duration = Duration::from_secs(2);
/// Questions to the stepper that wait.
const QUERIES: usize = 16;

type Running = JoinSet<(&'static str, Result<()>)>;

/// The tasks of the daemon, by name, and the tokens that end them.
struct Tasks {
    running: Running,
    cancel: CancellationToken,
    /// What answers names: it outlives the rest while a successor takes over.
    names: Running,
    names_cancel: CancellationToken,
    /// The sockets of names, and who comes to take them.
    shared: Vec<OwnedFd>,
    successor: Option<oneshot::Receiver<Successor>>,
}

/// Runs the daemon until a signal or a fault ends it.
///
/// # Errors
/// One sentence; nothing is left half attached.
pub fn run(args: &RunArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = Tasks::new();
        let ended = match start(args, &mut tasks).await {
            Ok(()) => tasks.until_ended().await,
            Err(error) => Err(error),
        };
        let drained = tasks.drain().await;
        ended.and(drained)
    })
}

async fn start(args: &RunArgs, tasks: &mut Tasks) -> Result<()> {
    let facts = Facts::read(&args.node)?;
    require(args, &facts)?;
    let (predecessor, handed) = take_over(args)?;
    let listener = Listener::bind(&args.place.run_dir)?;
    let healthz = bind_healthz(args).await?;
    let reports = Reports::new();
    let health = Health::new(reports.connection(), reports.notices().clone());
    let snapshots = start_source(args, &facts, (&reports, &health), tasks)?;
    let first = tasks.first_snapshot(snapshots.clone()).await?;

    // What can fail comes before what others would notice: the programs are attached last.
    let node = node_settings(args, &facts, &first)?;
    let names = Names::new(names::zone_config(args, &node.cluster_dns, &node.pod_cidrs)?);
    let listen = facts::dns_addresses(args, &first);
    let mut registry = Registry::default();
    let own = registry.sub_registry_with_prefix("fairway");
    reports.register(own);
    let metrics = proxy::Metrics::register(own);
    let settled = Settled { args: args.clone(), facts: facts.clone(), dns: listen.clone() };
    let keeper = Keeper::new(settled, network::Metrics::register(own))?;
    let prepared = Prepared::new(&args.place, &listen)?;
    let mut answering = Answering::bind(args, &facts, &listen, handed)?;
    tasks.shared = answering.share();
    let mut proxy = Proxy::open(proxy_config(args, &facts, &first)?)?;
    let sweeper = proxy.sweeper()?;
    let surroundings = open_network(&keeper, &mut proxy, &first)?;
    prepared.keep();

    let zone = names.reader();
    let (progress, seen) = watch::channel(Progress::default());
    let forwarder = tasks.start_names(answering, &zone, &mut registry, seen.clone())?;
    tasks.spawn_names("heartbeat", names::beat(proxy.heartbeat(), tasks.names_cancel.clone()));
    let ((queries, asked), connections) = (mpsc::channel(QUERIES), proxy.connections());
    if let Some(sweeper) = sweeper {
        tasks.spawn("sweep", sweep::run(sweeper, metrics.flows(), tasks.cancel.clone()));
    }
    let stepper = Stepper {
        proxy,
        names,
        progress,
        health: health.clone(),
        metrics,
        surroundings,
        handed_over: keeper.handed_over(),
        reported: Reported::new(reports.notices()),
    };
    tasks.spawn("stepper", stepper.run(snapshots, asked, tasks.cancel.clone()));
    tasks.spawn("network", keeper.run(seen.clone(), tasks.cancel.clone()));
    start_health((&health, reports.notices()), healthz, seen.clone(), tasks);
    let state = Arc::new(State {
        progress: seen,
        zone,
        forwarder,
        queries,
        connections,
        reports,
        health,
        registry,
        node,
    });
    tasks.spawn("admin", server::serve(listener, Arc::clone(&state), tasks.cancel.clone()));
    tasks.spawn("signals", signals(tasks.cancel.clone()));
    tasks.open_door(&args.place.run_dir)?;
    if let Some(predecessor) = predecessor {
        tasks.spawn("take-over", dismiss(predecessor, state.zone.clone(), tasks.cancel.clone()));
    }
    tracing::info!(node = facts.node_name.value, "started");
    Ok(())
}

/// What this kernel and machine must offer.
fn require(args: &RunArgs, facts: &Facts) -> Result<()> {
    let checks = proxy::check(&facts.cgroup.value, &args.place.bpf_dir);
    checks.into_iter().try_for_each(|check| check.found.map(drop).map_err(|sentence| anyhow!(sentence)))
}

async fn bind_healthz(args: &RunArgs) -> Result<Option<TcpListener>> {
    match args.healthz_bind_address.0 {
        Some(address) => health::bind_healthz(address).await.map(Some),
        None => Ok(None),
    }
}

/// As large as the cluster needs; an API server that is away says nothing about that.
fn sizes(first: &Snapshot) -> Sizes {
    match first.listed.contains(Kind::Service) {
        true => Sizes::for_services(first.services.len()),
        false => Sizes::default(),
    }
}

/// Makes the node's network as it should be, and tells the packet engine of it.
fn open_network(
    keeper: &Keeper,
    proxy: &mut Proxy,
    first: &Snapshot,
) -> Result<watch::Receiver<Option<proxy::Surroundings>>> {
    keeper.open(first)?;
    keeper.tell_surroundings(first)?;
    let mut surroundings = keeper.surroundings();
    if let Some(now) = surroundings.borrow_and_update().as_ref() {
        proxy.surround(now)?;
    }
    Ok(surroundings)
}

/// The sockets of the daemon that runs here, if there is one and the options say to take its place.
fn take_over(args: &RunArgs) -> Result<(Option<Predecessor>, Vec<OwnedFd>)> {
    if !args.take_over {
        return Ok((None, Vec::new()));
    }
    let taken = tokio::task::block_in_place(|| handover::take_over(&args.place.run_dir))?;
    Ok(taken.map_or((None, Vec::new()), |(predecessor, handed)| (Some(predecessor), handed)))
}

/// Lets the predecessor go once names are answered here from complete lists.
async fn dismiss(predecessor: Predecessor, zone: dns::Reader, cancel: CancellationToken) -> Result<()> {
    tokio::select! {
        () = zone.wait_ready() => predecessor.dismiss()?,
        () = cancel.cancelled() => return Ok(()),
    }
    tracing::info!("took over from the daemon that ran here");
    cancel.cancelled().await;
    Ok(())
}

fn start_source(
    args: &RunArgs,
    facts: &Facts,
    (reports, health): (&Reports, &Health),
    tasks: &mut Tasks,
) -> Result<watch::Receiver<Arc<Snapshot>>> {
    let (events, received) = mpsc::channel(cluster::QUEUE);
    let (made, snapshots) = watch::channel(Arc::default());
    let source = source::run(source_config(args, facts), events, reports.clone(), tasks.cancel.clone());
    tasks.spawn("source", async { Ok(source.await?) });
    tasks.spawn("cluster", cluster::reduce(received, made, health.clone(), tasks.cancel.clone()));
    Ok(snapshots)
}

/// The source that the options name.
pub fn source_config(args: &RunArgs, facts: &Facts) -> SourceConfig {
    match &args.source.manifests {
        Some(folder) => SourceConfig::Manifests(manifests::Config {
            folder: folder.clone(),
            run_dir: args.place.run_dir.clone(),
            cluster: manifests_cluster(args, facts),
        }),
        None => SourceConfig::Kube(source::kube::Config {
            kubeconfig: args.source.kubeconfig.clone(),
            api_server: args.source.api_server.clone(),
            node_name: facts.node_name.value.clone(),
            all_nodes: args.network.node_routes != NodeRouteMode::Off,
            all_pods: args.names.dns_pod_names == PodNames::Verified,
            patience: source::kube::PATIENCE,
        }),
    }
}

/// What the objects of a folder are completed with.
pub fn manifests_cluster(args: &RunArgs, facts: &Facts) -> manifests::Cluster {
    manifests::Cluster {
        service_cidrs: args.source.service_cidr.clone(),
        cluster_dns: args.names.cluster_dns.first().copied(),
        node: facts.node(),
    }
}

fn proxy_config(args: &RunArgs, facts: &Facts, first: &Snapshot) -> Result<proxy::Config> {
    let node_port_addresses = network::node_port_addresses(args, facts, first)?;
    if node_port_addresses.as_ref().is_some_and(Vec::is_empty) {
        tracing::warn!(
            "node ports answer on loopback alone: no address of this node is in --nodeport-addresses"
        );
    }
    Ok(proxy::Config {
        cgroup: facts.cgroup.value.clone(),
        bpf_dir: args.place.bpf_dir.clone(),
        node_name: facts.node_name.value.as_str().into(),
        node_addresses: args.node.node_ip.clone(),
        node_port_addresses,
        cluster_dns: facts::cluster_dns(args, first).value,
        sizes: sizes(first),
        layout: proxy::LAYOUT,
        end_tcp: args.node.end_tcp,
        packets: (args.network.packets.packets == Switch::On).then(proxy::LinkPath::probe),
        redirect: args.network.packets.packet_path == PacketPath::Redirect,
    })
}

fn start_health(
    (health, notices): (&Health, &Notices),
    healthz: Option<TcpListener>,
    progress: watch::Receiver<Progress>,
    tasks: &mut Tasks,
) {
    if let Some(listener) = healthz {
        let served = health::serve_healthz(listener, health.clone(), tasks.cancel.clone());
        tasks.spawn("healthz", async {
            served.await;
            Ok(())
        });
    }
    let ports = health::serve_ports(progress, health.clone(), notices.clone(), tasks.cancel.clone());
    tasks.spawn("health ports", ports);
}

fn node_settings(args: &RunArgs, facts: &Facts, first: &Snapshot) -> Result<NodeSettings> {
    Ok(NodeSettings {
        name: facts.node_name.value.clone(),
        addresses: facts.node_ips.value.clone(),
        pod_cidrs: facts.pod_cidrs(first).value,
        cluster_dns: facts::cluster_dns(args, first).value,
        cluster_domain: args.names.cluster_domain.clone(),
        cgroup: facts.cgroup.value.clone(),
        run_dir: args.place.run_dir.clone(),
        bpf_dir: args.place.bpf_dir.clone(),
        mtu: sandbox::node_mtu().context("cannot read the MTU of this node's uplink")?,
    })
}

async fn signals(cancel: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = cancel.cancelled() => {}
    }
    cancel.cancel();
    Ok(())
}

impl Tasks {
    fn new() -> Self {
        Self {
            running: JoinSet::new(),
            cancel: CancellationToken::new(),
            names: JoinSet::new(),
            names_cancel: CancellationToken::new(),
            shared: Vec::new(),
            successor: None,
        }
    }

    /// Starts what answers names.
    fn start_names(
        &mut self,
        mut answering: Answering,
        zone: &dns::Reader,
        registry: &mut Registry,
        progress: watch::Receiver<Progress>,
    ) -> Result<Arc<dns::Forwarder>> {
        let server = answering.start(zone, registry, &self.names_cancel)?;
        let forwarder = Arc::clone(&server.forwarder);
        self.spawn_names("dns", names::join(server));
        self.spawn_names("dns access", answering.keep_access(progress, self.names_cancel.clone()));
        Ok(forwarder)
    }

    fn spawn_names(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.names.spawn(async move { (name, task.await) });
    }

    /// From now on a successor may come; then all but the names ends.
    fn open_door(&mut self, run_dir: &Path) -> Result<()> {
        let door = Door::open(run_dir)?;
        let (came, successor) = oneshot::channel();
        let cancel = self.cancel.clone();
        self.spawn("door", async move {
            if let Some(successor) = door.wait(&cancel).await? {
                tracing::info!("a successor takes over");
                // It is awaited by who called, for as long as this process lives.
                let _ = came.send(successor);
                cancel.cancel();
            }
            Ok(())
        });
        self.successor = Some(successor);
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.running.spawn(async move { (name, task.await) });
    }

    /// The snapshot that tells the cluster DNS address; an empty one if the API server is away.
    async fn first_snapshot(
        &mut self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Result<Arc<Snapshot>> {
        let listed = snapshots.wait_for(|snapshot| {
            snapshot.listed.contains(Kind::Service) && snapshot.listed.contains(Kind::Node)
        });
        tokio::select! {
            // A task that ended closes the channel too, and knows better why.
            biased;
            Some(ended) = self.running.join_next() => return Err(Self::fault(ended)),
            Ok(snapshot) = listed => return Ok(Arc::clone(&snapshot)),
            () = tokio::time::sleep(DNS_PATIENCE) => {}
        }
        tracing::warn!("the Services are not listed yet; the cluster DNS address is that of the options");
        Ok(Arc::default())
    }

    /// Waits until a signal, or until a task ends unasked.
    async fn until_ended(&mut self) -> Result<()> {
        let ended = tokio::select! {
            ended = self.running.join_next() => ended,
            Some(ended) = self.names.join_next() => Some(ended),
        };
        match ended {
            Some(Ok((_, Ok(())))) if self.cancel.is_cancelled() => Ok(()),
            Some(ended) => Err(Self::fault(ended)),
            None => bail!("no task is left"),
        }
    }

    fn fault(ended: Result<(&'static str, Result<()>), tokio::task::JoinError>) -> anyhow::Error {
        match ended {
            Ok((_, Err(error))) => error,
            Ok((name, Ok(()))) => anyhow!("the {name} task ended unasked"),
            Err(error) => anyhow!(error).context("a task panicked"),
        }
    }

    /// Asks every task to end, and waits for as long as [`DRAIN`]; a successor gets the names in between.
    async fn drain(mut self) -> Result<()> {
        self.cancel.cancel();
        join_all(&mut self.running).await;
        let mut handed = Ok(());
        if let Some(successor) = self.successor.and_then(|mut came| came.try_recv().ok()) {
            let shared = self.shared;
            let handing = tokio::task::spawn_blocking(move || successor.hand_over(&shared));
            handed = handing.await.context("the hand-over panicked").flatten();
        }
        self.names_cancel.cancel();
        join_all(&mut self.names).await;
        handed
    }
}

async fn join_all(tasks: &mut Running) {
    let rest = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, rest).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
}

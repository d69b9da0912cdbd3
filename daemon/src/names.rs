//! What answers names, as the options say: the zone's settings, the server's sockets and rules, and the heartbeat
//! that tells the data plane that they are answered here. Called by `app`; what a name means is known by `dns`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use dns::{Access, Bound, DomainName, Server, Upstreams, ZoneConfig};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prometheus_client::registry::Registry;
use proxy::Heartbeat;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::{NameArgs, RunArgs};
use crate::facts::Facts;
use crate::step::Progress;

const DNS_PORT: u16 = 53;
/// How often the data plane is told that names are answered here: well within the half second after which it
/// sends questions to other nodes.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// The most a thread can be preferred, in the words of setpriority(2).
const MOST_URGENT: i32 = -20;

/// The server of names before it starts, and who may ask it.
pub(crate) struct Answering {
    sockets: Vec<Bound>,
    /// The same sockets, to be handed over.
    shared: Vec<OwnedFd>,
    names: NameArgs,
    access: Arc<Access>,
    /// This node.
    own: Vec<IpNet>,
    /// Who may ask whatever the cluster says.
    clients: Vec<IpNet>,
}

/// What names are made of, as the options say.
///
/// # Errors
/// If the cluster domain is no domain name.
pub fn zone_config(args: &RunArgs, cluster_dns: &[IpAddr], pod_cidrs: &[IpNet]) -> Result<ZoneConfig> {
    let domain = &args.names.cluster_domain;
    let domain = DomainName::parse(domain)
        .with_context(|| format!("{domain:?} is not a domain name; see --cluster-domain"))?;
    if domain.labels().next().is_none() {
        bail!("the cluster domain cannot be the root: no name would be anybody else's; see --cluster-domain");
    }
    let reverse = args.source.service_cidr.iter().chain(pod_cidrs).copied().collect();
    let (ttl, servers, pods) = (args.names.dns_ttl, cluster_dns.to_vec(), args.names.dns_pod_names.into());
    Ok(ZoneConfig { ttl, reverse, servers, pods, ..ZoneConfig::new(domain) })
}

impl Answering {
    /// Binds the sockets that were not handed over.
    ///
    /// # Errors
    /// One sentence: an address is taken.
    pub(crate) fn bind(
        args: &RunArgs,
        facts: &Facts,
        listen: &[IpAddr],
        handed: Vec<OwnedFd>,
    ) -> Result<Self> {
        let mut handed = Bound::adopt(handed);
        let mut bind = |ip: &IpAddr| {
            let address = SocketAddr::new(*ip, DNS_PORT);
            match handed.iter().position(|bound| bound.address() == address) {
                Some(at) => Ok(handed.swap_remove(at)),
                None => {
                    Bound::bind(address).context("names cannot be answered; `ss -lnp` shows who else does")
                }
            }
        };
        let mut sockets = listen.iter().map(&mut bind).collect::<Result<Vec<Bound>>>()?;
        for address in facts.node_ips.value.iter().filter(|ip| !listen.contains(ip)) {
            // Pods of other nodes ask here while their own daemon is away. Those of this node do without.
            match bind(address) {
                Ok(bound) => sockets.push(bound),
                Err(error) => tracing::warn!(
                    %address,
                    error = format!("{error:#}"),
                    "names are not answered for other nodes while their daemon is away"
                ),
            }
        }
        let shared: Vec<Vec<OwnedFd>> = sockets.iter().map(Bound::share).collect::<Result<_, _>>()?;
        let shared = shared.into_iter().flatten().collect();
        let names = args.names.clone();
        let access = Arc::new(Access::new(names.dns_rate_limit, names.dns_strangers.into()));
        let loopback = [
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        ];
        // A process of this node that asks one of the server's addresses has that address too.
        let addresses = facts.node_ips.value.iter().chain(listen).map(|ip| IpNet::from(*ip));
        let own = addresses.chain(loopback).collect();
        let pods = &facts.pod_cidrs.value;
        let clients = pods.iter().chain(&args.node.no_masquerade).chain(&names.dns_allow).copied().collect();
        let answering = Self { sockets, shared, names, access, own, clients };
        answering.allow(&Progress::default());
        Ok(answering)
    }

    /// Starts the server.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn start(
        &mut self,
        zone: &dns::Reader,
        registry: &mut Registry,
        cancel: &CancellationToken,
    ) -> Result<Server> {
        let sockets = std::mem::take(&mut self.sockets);
        let upstreams = match self.names.dns_upstream.as_slice() {
            [] => Upstreams::of_node(sockets.iter().map(Bound::address).collect()),
            fixed => Upstreams::Fixed(fixed.to_vec()),
        };
        let mut stub_domains: BTreeMap<DomainName, Vec<SocketAddr>> = BTreeMap::new();
        for (domain, server) in &self.names.dns_stub_domain {
            stub_domains.entry(domain.clone()).or_default().push(*server);
        }
        let metrics = dns::Metrics::default();
        metrics.register(registry);
        let access = Arc::clone(&self.access);
        let log_every = self.names.dns_log;
        let config =
            dns::Config { sockets, upstreams, stub_domains, access, log_every, ..dns::Config::default() };
        let server = dns::start(config, zone, &metrics, cancel)?;
        tracing::info!(addresses = ?server.addresses, "answering names");
        Ok(server)
    }

    /// The sockets, for a successor.
    pub(crate) fn share(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.shared)
    }

    /// Lets the pods of every node that is known ask: theirs come here while their own node's daemon is away.
    ///
    /// # Errors
    /// None; it ends with `cancel`.
    pub(crate) async fn keep_access(
        self,
        mut progress: watch::Receiver<Progress>,
        cancel: CancellationToken,
    ) -> Result<()> {
        loop {
            self.allow(&progress.borrow_and_update());
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return Ok(()) },
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    fn allow(&self, progress: &Progress) {
        let nodes = progress.snapshot.nodes.values();
        let theirs = nodes.flat_map(|node| {
            node.pod_cidrs.iter().copied().chain(node.addresses.iter().map(|ip| IpNet::from(*ip)))
        });
        let clients: Vec<IpNet> = self.clients.iter().copied().chain(theirs).collect();
        self.access.allow(&self.own, &clients);
    }
}

/// Waits until the server ends.
///
/// # Errors
/// If one of its tasks panicked.
pub(crate) async fn join(server: Server) -> Result<()> {
    let mut running = server.tasks;
    while let Some(ended) = running.join_next().await {
        ended.context("a DNS task panicked")?;
    }
    Ok(())
}

/// Tells the data plane that names are answered here, for as long as this process runs. A thread of its own, as
/// those that answer are, and before all others: on a busy node a task may wait for longer than the heartbeat is
/// valid, and pods would ask another node, which may have gone. In the end pods ask others at once.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) async fn beat(mut heartbeat: Heartbeat, cancel: CancellationToken) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::Builder::new().name("heartbeat".to_owned());
    let run = move || {
        // Without the right to it the thread is one among the others.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), MOST_URGENT);
        loop {
            heartbeat.beat();
            std::thread::park_timeout(HEARTBEAT);
            if stopped.load(Ordering::Relaxed) {
                return heartbeat.stop();
            }
        }
    };
    let thread = thread.spawn(run).context("the heartbeat has no thread")?;
    cancel.cancelled().await;
    stop.store(true, Ordering::Relaxed);
    thread.thread().unpark();
    // It wakes at once.
    thread.join().map_err(|_| anyhow!("the heartbeat panicked"))
}

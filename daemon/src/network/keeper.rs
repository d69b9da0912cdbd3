//! Keeps the node's network as it should be: after every change of the cluster, after every change of the kernel's
//! links, addresses and routes, and now and then. One path for making, changing and repairing; what had to be put
//! back is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use model::Snapshot;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use proxy::Surroundings;
use sandbox::{Changes, NodeRoutes, Repair, RouteOptions, RoutedNode};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::cni::Cni;
use super::{Settled, masquerade, surroundings};
use crate::cli::NodeRouteMode;
use crate::sentence::sentence;
use crate::step::Progress;

/// A burst of changes, as many pods make at once, is one look.
const SETTLE: Duration = Duration::from_millis(250);
/// Whatever no word was sent for.
const EVERY: Duration = Duration::from_secs(30);

/// Counts what had to be put back, by what it was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    repairs: Family<Repaired, Counter>,
    problems: Gauge,
    entries: Family<InMap, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InMap {
    map: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Repaired {
    what: &'static str,
}

/// The owner of the node's routes, rules and CNI files.
pub(crate) struct Keeper {
    settled: Settled,
    cni: Option<Cni>,
    metrics: Metrics,
    repair: Repair,
    /// As last brought to the kernel: whatever differs from it then is a repair.
    routes: Option<NodeRoutes>,
    masqueraded: Option<sandbox::Masquerade>,
    /// What the packet engine was told last.
    surroundings: watch::Sender<Option<Surroundings>>,
    /// The host ends of pods that have hostPorts, as they were at the last look.
    led_to: BTreeSet<u32>,
    /// Marked when one of them has come or gone.
    handed_over: watch::Sender<()>,
    /// What stands in the way, as it was logged.
    problems: Vec<String>,
}

impl Metrics {
    /// Adds them to the registry.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let repairs = metrics.repairs.clone();
        registry.register("network_repairs", "Things of the node's network that had to be put back", repairs);
        let problems = metrics.problems.clone();
        registry.register("network_problems", "What stands in the way of the node's network now", problems);
        let entries = metrics.entries.clone();
        registry.register("network_map_entries", "Entries about pods in the kernel's maps", entries);
        metrics
    }
}

impl Keeper {
    /// Changes nothing yet.
    pub(crate) fn new(settled: Settled, metrics: Metrics) -> Result<Self> {
        let cni = Cni::new(&settled.args.network.cni, &settled.args.place)?;
        Ok(Self {
            settled,
            cni,
            metrics,
            repair: Repair::default(),
            routes: None,
            masqueraded: None,
            surroundings: watch::Sender::new(None),
            led_to: BTreeSet::new(),
            handed_over: watch::Sender::new(()),
            problems: Vec::new(),
        })
    }

    /// Lets pods reach the world and tells the data plane whose namespace is whose: without it no daemon starts.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn open(&self, snapshot: &Snapshot) -> Result<()> {
        super::open(&self.settled, snapshot)
    }

    /// What the packet engine is to be told, whenever it changes: None where it is off.
    pub(crate) fn surroundings(&self) -> watch::Receiver<Option<Surroundings>> {
        self.surroundings.subscribe()
    }

    /// Marked whenever a pod that has hostPorts has come or gone.
    pub(crate) fn handed_over(&self) -> watch::Receiver<()> {
        self.handed_over.subscribe()
    }

    /// Tells the packet engine where it is.
    ///
    /// # Errors
    /// What cannot be read.
    pub(crate) fn tell_surroundings(&self, snapshot: &Snapshot) -> Result<()> {
        if !surroundings::is_on(&self.settled) {
            return Ok(());
        }
        let pod_cidrs = self.settled.facts.pod_cidrs(snapshot).value;
        let now = surroundings::surroundings(&self.settled, snapshot, &pod_cidrs)?;
        self.surroundings.send_if_modified(|told| {
            let changed = told.as_ref() != Some(&now);
            *told = Some(now);
            changed
        });
        Ok(())
    }

    /// Keeps the network until `cancel`.
    ///
    /// # Errors
    /// If the kernel's word cannot be had at all.
    pub(crate) async fn run(
        mut self,
        mut progress: watch::Receiver<Progress>,
        cancel: CancellationToken,
    ) -> Result<()> {
        let changes = Changes::open()?;
        // SAFETY: the socket is the same, and open, for as long as the value lives.
        let changes = unsafe { AsyncFd::register(changes) }?;
        loop {
            let (snapshot, ready) = {
                let progress = progress.borrow_and_update();
                (Arc::clone(&progress.snapshot), progress.facts.is_some())
            };
            if ready {
                block_in_place(|| self.look(&snapshot));
            }
            let next = if self.repair.is_suspicious() { SETTLE } else { EVERY };
            tokio::select! {
                changed = progress.changed() => changed.context("the stepper ended")?,
                word = changes.readable() => word?.clear_ready(),
                () = tokio::time::sleep(next) => {}
                () = cancel.cancelled() => return Ok(()),
            }
            tokio::select! {
                () = tokio::time::sleep(SETTLE) => {}
                () = cancel.cancelled() => return Ok(()),
            }
            // What came until now is seen by the look that follows.
            changes.get_ref().drain().context("listening to changes of the network")?;
        }
    }

    /// Makes everything as it should be. One thing that fails does not keep the others.
    fn look(&mut self, snapshot: &Snapshot) {
        let pod_cidrs = self.settled.facts.pod_cidrs(snapshot).value;
        let steps = [
            sandbox::enable_forwarding(&pod_cidrs).context("cannot let this node forward for its pods"),
            self.keep_masquerade(snapshot, &pod_cidrs),
            self.keep_dns_addresses(),
            self.keep_node_routes(snapshot, &pod_cidrs),
            self.keep_pods(),
            self.keep_cni(&pod_cidrs),
            self.tell_surroundings(snapshot),
        ];
        let unreached = self.routes.iter().flat_map(|routes| &routes.problems).cloned();
        let failed = steps.into_iter().filter_map(Result::err).map(|error| sentence(&error));
        let shadowed = sandbox::shadowed(&self.settled.args.place.bpf_dir);
        let shadowed = shadowed.unwrap_or_else(|error| vec![format!("cannot read the host ports: {error}")]);
        let problems: Vec<String> = unreached.chain(failed).chain(shadowed).collect();
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!(problem, "the network is not as it should be");
        }
        self.metrics.problems.set(i64::try_from(problems.len()).unwrap_or(i64::MAX));
        self.problems = problems;
    }

    fn keep_masquerade(&mut self, snapshot: &Snapshot, pod_cidrs: &[IpNet]) -> Result<()> {
        let wanted = masquerade(&self.settled, snapshot, pod_cidrs);
        let changed = wanted.apply().context("cannot install the masquerade rule")?;
        if changed && self.masqueraded.as_ref() == Some(&wanted) {
            self.repaired("masquerade", "the table of nftables");
        }
        self.masqueraded = Some(wanted);
        Ok(())
    }

    fn keep_dns_addresses(&self) -> Result<()> {
        let present = sandbox::local_addresses().context("cannot read this node's addresses")?;
        let lost: Vec<_> = self.settled.dns.iter().filter(|ip| !present.contains(ip)).copied().collect();
        for address in &lost {
            self.repaired("dns-address", &format!("{address} on lo"));
        }
        if lost.is_empty() {
            return Ok(());
        }
        sandbox::add_loopback_addresses(&lost).context("cannot put the DNS addresses on lo")
    }

    fn keep_node_routes(&mut self, snapshot: &Snapshot, pod_cidrs: &[IpNet]) -> Result<()> {
        let network = &self.settled.args.network;
        let planned = match network.node_routes {
            NodeRouteMode::Off => NodeRoutes::default(),
            mode @ (NodeRouteMode::Auto | NodeRouteMode::Vxlan) => {
                let options = RouteOptions {
                    always_tunnel: mode == NodeRouteMode::Vxlan,
                    port: network.vxlan_port,
                    mtu: sandbox::node_mtu().context("cannot read the MTU of this node's uplink")?,
                };
                let own = self.settled.own_node(snapshot, pod_cidrs);
                let peers: Vec<RoutedNode> = peers(snapshot).collect();
                let addresses = sandbox::own_addresses().context("cannot read this node's addresses")?;
                sandbox::plan_node_routes(&own, &peers, &addresses, options)
            }
        };
        let changed = planned.apply().context("cannot route to the pods of other nodes")?;
        let again = self.routes.as_ref() == Some(&planned);
        for change in changed {
            if again {
                self.repaired("node-route", &change);
            } else {
                tracing::info!(change, "routes to other nodes");
            }
        }
        self.routes = Some(planned);
        Ok(())
    }

    fn keep_pods(&mut self) -> Result<()> {
        for lost in self.repair.look().context("cannot look after the links of pods")? {
            self.repaired("pod-route", &lost);
        }
        let bpf_dir = &self.settled.args.place.bpf_dir;
        let removed = sandbox::prune(bpf_dir).context("cannot free the maps of pods that are gone")?;
        if removed > 0 {
            tracing::info!(removed, "entries of pods that went without a DEL");
        }
        let entries = sandbox::map_entries(bpf_dir).context("cannot count the entries of pods")?;
        for (map, count) in [("pods", entries.pods), ("hostports", entries.host_ports)] {
            let gauge = self.metrics.entries.get_or_create(&InMap { map }).clone();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        // The number of a link is not used again.
        if self.led_to != entries.led_to {
            self.handed_over.send_replace(());
        }
        self.led_to = entries.led_to;
        Ok(())
    }

    fn keep_cni(&self, pod_cidrs: &[IpNet]) -> Result<()> {
        let Some(cni) = &self.cni else { return Ok(()) };
        anyhow::ensure!(
            !pod_cidrs.is_empty(),
            "this node has no pod range yet, so no pod can be attached: give its Node podCIDRs, or say --pod-cidr"
        );
        for written in cni.install(pod_cidrs, &self.settled.args.place.bpf_dir)? {
            tracing::info!(path = written, "installed the CNI plug-in");
        }
        Ok(())
    }

    fn repaired(&self, what: &'static str, detail: &str) {
        tracing::warn!(what, detail, "put back");
        self.metrics.repairs.get_or_create(&Repaired { what }).inc();
    }
}

/// Every node that is watched.
fn peers(snapshot: &Snapshot) -> impl Iterator<Item = RoutedNode> + '_ {
    snapshot.nodes.values().map(|node| RoutedNode {
        name: node.name.to_string(),
        addresses: node.addresses.clone(),
        pod_cidrs: node.pod_cidrs.clone(),
    })
}

//! The health-check node ports (R7): one HTTP server a port on each address where node ports answer. Which
//! ports there are follows the tables; what they answer is looked up with each request.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use model::{Kind, ObjectName};
use proxy::{HealthPort, HealthPorts};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Health;
use super::server::serve;
use crate::http::{JSON, Reply, reply};
use crate::notice::{Notice, Notices, Subject};
use crate::step::Progress;

/// How often a port that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// What a load balancer weighs this node by.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What each port answers: the service that has it, and its endpoints here.
type Answers = BTreeMap<u16, (ObjectName, HealthPort)>;

/// The open ports.
struct Ports {
    health: Health,
    notices: Notices,
    answers: Arc<Mutex<Answers>>,
    open: BTreeMap<SocketAddr, JoinHandle<()>>,
    /// Addresses that could not be bound, as they were reported.
    failed: BTreeSet<SocketAddr>,
}

/// Opens, closes and answers the ports that `progress` asks for, until `cancel`.
///
/// # Errors
/// If the progress ends unasked.
pub async fn serve_ports(
    mut progress: watch::Receiver<Progress>,
    health: Health,
    notices: Notices,
    cancel: CancellationToken,
) -> Result<()> {
    let mut ports =
        Ports { health, notices, answers: Arc::default(), open: BTreeMap::new(), failed: BTreeSet::new() };
    let mut served: Option<(HealthPorts, Vec<IpAddr>)> = None;
    loop {
        let (wanted, addresses) = {
            let progress = progress.borrow_and_update();
            let addresses = progress.facts.as_ref().map(|facts| facts.node_port_addresses.clone());
            (progress.health_ports.clone(), addresses.unwrap_or_default())
        };
        let is_served = |(ports, at): &(HealthPorts, _)| ports.ptr_eq(&wanted) && *at == addresses;
        if !ports.failed.is_empty() || !served.as_ref().is_some_and(is_served) {
            ports.follow(&winners(&wanted), &addresses).await;
            served = Some((wanted, addresses));
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { bail!("the progress ended") },
            () = tokio::time::sleep(RETRY), if !ports.failed.is_empty() => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

/// R18: of two services with one port the older has it.
fn winners(wanted: &HealthPorts) -> Answers {
    let mut answers = Answers::new();
    for (name, port) in wanted {
        let rank = (port.created, name);
        if answers.get(&port.port).is_none_or(|(other, had)| rank < (had.created, other)) {
            answers.insert(port.port, (name.clone(), *port));
        }
    }
    answers
}

impl Ports {
    async fn follow(&mut self, answers: &Answers, addresses: &[IpAddr]) {
        // First what the ports say, then which there are: a port that stays is right without being bound anew.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone_from(answers);
        let wanted: BTreeSet<SocketAddr> = answers
            .keys()
            .flat_map(|&port| addresses.iter().map(move |&ip| SocketAddr::new(ip, port)))
            .collect();
        self.failed.retain(|address| wanted.contains(address));
        let surplus: Vec<SocketAddr> =
            self.open.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in surplus {
            self.close(address).await;
        }
        for address in wanted {
            if self.open.get(&address).is_some_and(|server| !server.is_finished()) {
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    self.failed.remove(&address);
                    self.open.insert(address, tokio::spawn(self.server(listener, address.port())));
                }
                Err(error) => self.report(&answers[&address.port()].0, address, &error),
            }
        }
    }

    /// Answers for one port. The service that has it may change while it is open.
    fn server(&self, listener: TcpListener, port: u16) -> impl Future<Output = ()> + use<> {
        let (answers, health) = (Arc::clone(&self.answers), self.health.clone());
        serve(listener, move |_path| {
            let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            let is_healthy = health.status(SystemTime::now()).is_healthy();
            match answers.get(&port) {
                Some((service, answer)) => page(service, answer.local, is_healthy),
                None => reply(StatusCode::SERVICE_UNAVAILABLE, JSON, String::new()),
            }
        })
    }

    /// Returns once the address is free.
    async fn close(&mut self, address: SocketAddr) {
        let Some(server) = self.open.remove(&address) else { return };
        server.abort();
        // It ends by having been aborted.
        let _ = server.await;
    }

    fn report(&mut self, service: &ObjectName, address: SocketAddr, error: &std::io::Error) {
        if self.failed.insert(address) {
            let subject = Subject::ObjectHere(Kind::Service, service.clone());
            let note = format!("the health-check node port {address} cannot be bound on this node: {error}");
            self.notices.tell(Notice { subject, reason: "HealthPortUnavailable", note });
            tracing::warn!(%address, %error, "a health-check node port cannot be bound; load balancers see this node as down");
        }
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.open.values().for_each(JoinHandle::abort);
    }
}

/// The form of kube-proxy: status, headers and layout of the body.
fn page(service: &ObjectName, local: usize, is_healthy: bool) -> Reply {
    let is_good = local > 0 && is_healthy;
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": {is_healthy}\n}}",
        service.namespace, service.name,
    );
    let mut page = reply(if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, JSON, body);
    page.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    page.headers_mut().insert(WEIGHT, HeaderValue::from(local));
    page
}

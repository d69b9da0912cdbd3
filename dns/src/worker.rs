//! The threads that answer datagrams, each from a socket of its own; the kernel shares the clients out over
//! them. What must wait, for the first lists or for an upstream, goes to a task and is answered on the same
//! socket; there is a bound on those. Started by `server`.
//!
//! A thread and not a task, because a task would need a second system call for each batch to wait for the next.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::batch::Batch;
use crate::responder::{Asker, Job, MAX_PENDING, Responder};
use crate::wire::Transport;

/// How long a thread waits for a datagram until it looks whether it is to end.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// How long the questions under way may take to end once the drain has begun: longer than an upstream may.
const DRAIN: Duration = Duration::from_secs(5);

/// A question that waits, and where its answer goes.
struct Waiting {
    job: Job,
    client: SocketAddr,
    socket: Arc<UdpSocket>,
}

/// Ends the threads when the task that speaks for them ends, or is dropped.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Answers on the sockets of one address until the drain. A thread that panics ends the task with a panic.
pub(crate) async fn serve(sockets: Vec<UdpSocket>, responder: Arc<Responder>, drain: CancellationToken) {
    let stop = Stop(Arc::default());
    let (later, mut waiting) = mpsc::channel(MAX_PENDING);
    let mut threads = JoinSet::new();
    for socket in sockets {
        let worker = Worker {
            socket: Arc::new(socket),
            responder: Arc::clone(&responder),
            later: later.clone(),
            stop: Arc::clone(&stop.0),
        };
        let (ended, end) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("dns-udp".to_owned());
        let run = move || {
            worker.run();
            let _ = ended.send(());
        };
        thread.spawn(run).expect("a node has room for a thread");
        threads.spawn(async { end.await.expect("a DNS thread does not panic") });
    }
    drop(later);
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            () = drain.cancelled() => break,
            Some(ended) = threads.join_next() => ended.expect("a DNS thread does not panic"),
            Some(_) = answering.join_next(), if !answering.is_empty() => {}
            Some(job) = waiting.recv() => { answering.spawn(finish(job, Arc::clone(&responder))); }
        }
    }
    drop(stop);
    while let Some(job) = waiting.recv().await {
        answering.spawn(finish(job, Arc::clone(&responder)));
    }
    let _ = timeout(DRAIN, async { while answering.join_next().await.is_some() {} }).await;
}

async fn finish(waiting: Waiting, responder: Arc<Responder>) {
    let Waiting { job, client, socket } = waiting;
    let answer = responder.finish(job).await;
    // The socket blocks, for its thread; a task may not. A full buffer loses the answer, as a full link would.
    let sent = SockRef::from(&*socket).send_to_with_flags(&answer, &client.into(), libc::MSG_DONTWAIT);
    if let Err(error) = sent {
        tracing::debug!(%client, %error, "an answer could not be sent");
    }
}

struct Worker {
    socket: Arc<UdpSocket>,
    responder: Arc<Responder>,
    later: mpsc::Sender<Waiting>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(self) {
        let mut batch = Batch::new();
        let mut seed: u64 = rand::random();
        while !self.stop.load(Ordering::Relaxed) {
            match batch.receive(&self.socket) {
                Ok(count) => self.answer(&mut batch, count, &mut seed),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // The kernel reports a fault of an earlier datagram here; the socket is still good.
                Err(error) => tracing::debug!(%error, "a UDP receive failed"),
            }
        }
    }

    fn answer(&self, batch: &mut Batch, count: usize, seed: &mut u64) {
        let since = Instant::now();
        for index in 0..count {
            let Some(client) = batch.client(index) else { continue };
            let asker = Asker { client, transport: Transport::Udp, since };
            // Weyl's sequence: any start of a rotation is as good as another.
            *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let start = *seed >> 32;
            let job =
                batch.answer(index, |message, out| self.responder.take_datagram(message, asker, start, out));
            let Some(job) = job else { continue };
            let waiting = Waiting { job, client, socket: Arc::clone(&self.socket) };
            // Full it cannot be: a job has one of as many places. Closed it is at the end of a drain.
            let _ = self.later.try_send(waiting);
        }
        if let Err(error) = batch.send(&self.socket) {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }
}

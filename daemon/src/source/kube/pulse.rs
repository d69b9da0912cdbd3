//! Whether a watch can still be trusted. A server that has gone without a word leaves connections open that will
//! never say anything; nothing on such a connection tells it from a cluster in which nothing happens.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::source::Connection;

/// When a watch last said something, beside what is known of the server.
pub(super) struct Pulse {
    connection: watch::Receiver<Connection>,
    patience: Duration,
    heard: Instant,
    /// A list is awaited, which a server that is there does not let wait.
    listing: bool,
    /// Since when the server is away.
    away: Option<Instant>,
}

impl Pulse {
    /// Of a watch that begins with a list.
    pub(super) fn new(connection: watch::Receiver<Connection>, patience: Duration) -> Self {
        Self { connection, patience, heard: Instant::now(), listing: true, away: None }
    }

    /// The watch has said something: it still lists, or watches.
    pub(super) fn heard(&mut self, listing: bool) {
        self.heard = Instant::now();
        self.listing = listing;
    }

    /// It has failed by itself, and goes on by itself.
    pub(super) fn failed(&mut self) {
        self.heard = Instant::now();
    }

    /// Resolves once it cannot be trusted: its list is overdue, or the server went and came back and this watch
    /// has not noticed. May be dropped and called again.
    pub(super) async fn lost(&mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.heard + self.patience), if self.listing => return,
                changed = self.connection.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let is_away = matches!(*self.connection.borrow_and_update(), Connection::Away { .. });
                    match self.away {
                        None if is_away => self.away = Some(Instant::now()),
                        Some(since) if !is_away => {
                            self.away = None;
                            if self.heard < since {
                                return;
                            }
                        }
                        None | Some(_) => {}
                    }
                }
            }
        }
    }
}

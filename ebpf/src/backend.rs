//! Map `backends`: ARRAY, backend id -> address, port, protocol, windows, service, counter. An id belongs to
//! one service port. Only the window byte and the counter ever change while the id is in use. 32 bytes, so
//! that none lies across two cache lines; the counter shares the line that the hook has just read.

use crate::address::{Address, Port};

/// Map value. Bytes 0..16 address, 16..18 port in network order, 18 protocol, 19 windows, 20..24 service id,
/// 24..32 connections opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Backend {
    address: Address,
    port: Port,
    protocol: u8,
    windows: u8,
    service: u32,
    opened: u64,
}

const _: () = assert!(size_of::<Backend>() == 32);

/// Offset of the window byte.
pub const WINDOWS_OFFSET: usize = 19;
/// Offset of the counter.
pub const OPENED_OFFSET: usize = 24;

/// The backend is in the local window now.
pub const LOCAL: u8 = 1;
/// The backend is in the cluster window now.
pub const CLUSTER: u8 = 2;

impl Backend {
    /// An element that no service uses.
    pub const UNUSED: Self =
        Self { address: Address::NONE, port: Port::new(0), protocol: 0, windows: 0, service: 0, opened: 0 };

    /// A backend.
    pub const fn new(address: Address, port: Port, protocol: u8, service: u32) -> Self {
        Self { address, port, protocol, windows: 0, service, opened: 0 }
    }

    /// The same in other windows.
    #[must_use]
    pub const fn with_windows(mut self, windows: u8) -> Self {
        self.windows = windows;
        self
    }

    /// Where it listens.
    #[inline(always)]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The port.
    #[inline(always)]
    pub const fn port(&self) -> Port {
        self.port
    }

    /// The protocol as in the IP header.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The windows it is in now: [`LOCAL`], [`CLUSTER`], both or none.
    #[inline(always)]
    pub const fn windows(&self) -> u8 {
        self.windows
    }

    /// The service it belongs to.
    #[inline(always)]
    pub const fn service(&self) -> u32 {
        self.service
    }

    /// Connections opened to it since it was written.
    #[inline(always)]
    pub const fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether `service` may still send to it through the window.
    #[inline(always)]
    pub const fn serves(&self, service: u32, window: u8) -> bool {
        self.service == service && self.windows & window != 0
    }
}

//! What the packet path asks of a hook: the bytes of the packet, and the maps of flows. The programs answer it
//! with helpers; the host tests with a packet in memory and maps of the standard library.

use crate::address::Address;
use crate::kernel::Maps;
use crate::packet::flow::{Flow, FlowKey};
use crate::packet::fragment::{FragmentKey, FragmentWord};
use crate::packet::headers::Headers;

/// A packet, by offsets from its first byte. Words are as they lie in memory.
pub trait Buffer {
    /// How many bytes it has.
    fn size(&self) -> u32;
    /// Reads words; None beyond the end.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;
    /// Writes words. `counted` if no checksum in the packet makes up for it, so that a sum which the card has
    /// made over the packet must be told.
    fn store<const N: usize>(&self, offset: u32, words: &[u32; N], counted: bool);
    /// Brings the checksum of an IPv4 header up to date.
    fn fix_header(&self, offset: u32, difference: u32);
    /// Brings the checksum of a transport header up to date. `pseudo` if what changed is in the
    /// pseudo-header, which a card does not sum; `optional` if a checksum of zero means none.
    fn fix(&self, offset: u32, difference: u32, pseudo: bool, optional: bool);
}

/// Which map of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `flows`.
    Kept,
    /// `fleeting`.
    Fleeting,
}

/// A hook at an uplink.
pub trait Hook: Maps + Buffer {
    /// How many ticks there were, which is never zero: it changes when the clock does.
    fn tick(&self) -> u64;
    /// Finds an entry, and notes that a packet of it was seen at `seconds` with these flags.
    fn touch(&self, table: Table, key: &FlowKey, seconds: u32, flags: u32) -> Option<Flow>;
    /// Adds an entry; false if there is one, or no room.
    fn insert(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool;
    /// Adds an entry, or replaces it; false if there is no room.
    fn put(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool;
    /// Removes an entry; false if there was none.
    fn remove(&self, table: Table, key: &FlowKey) -> bool;
    /// Sets [`Flow::CONFIRMED`] in an entry of `flows`; false if it was set, or there is no such entry.
    fn confirm(&self, key: &FlowKey) -> bool;
    /// How many flows of `flows` are half open: about, and possibly below zero for a moment.
    fn half_open(&self) -> i64;
    /// Changes that number.
    fn add_half_open(&self, difference: i64);
    /// When something of `fleeting` was last made or seen, in seconds of flows.
    fn fleeting(&self) -> u32;
    /// Notes that it is now.
    fn note_fleeting(&self, now: u32);
    /// Counts a connection to a backend that is closed.
    fn closed(&self, id: u32);
    /// Map `fragments`.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentWord>;
    /// Stores into `fragments`.
    fn set_fragment(&self, key: &FragmentKey, word: FragmentWord);
    /// Keeps the packet, a fragment that came before the first one of its datagram; false if it cannot.
    fn hold(&self, key: &FragmentKey, now: u32) -> bool;
    /// Lets the packet, the first fragment of its datagram, arrive once more, and those that are held for it
    /// behind it; false if none are.
    fn release(&self, key: &FragmentKey, now: u32) -> bool;
    /// What an address is: flags of [`crate::packet::uplink::range`].
    fn range(&self, address: &Address) -> u32;
    /// Sends the packet, which is rewritten as the flow says, to the link by which it goes on, past the host's stack; false
    /// if it cannot, or need not.
    fn send_on(&self, headers: &Headers, flow: &Flow) -> bool;
    /// Whether `sources` lets the client use the service.
    fn may_use(&self, service: u32, client: &Address) -> bool;
}

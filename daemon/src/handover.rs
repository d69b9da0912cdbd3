//! A planned restart without a lost question: the listening descriptors of names go from a daemon to its
//! successor over a socket in the run directory (SCM_RIGHTS), and are never closed and opened again.
//!
//! The one that leaves first ends all else, so that never two write the maps; then it hands over, and goes on
//! answering until the other says that it does. Whoever may open the socket, mode 0600, is trusted.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio_util::sync::CancellationToken;

/// In the run directory.
const SOCKET: &str = "take-over.sock";
/// Descriptors in one message: far more than a node has addresses, and fewer than the kernel allows (253).
const MAX_DESCRIPTORS: usize = 128;
/// How long the daemon that runs may take to end all but its names.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a successor may take until it answers names itself.
const SUCCESSION: Duration = Duration::from_secs(60);
/// What is said first, with the descriptors: the form of this conversation.
const VERSION: u8 = 1;
/// What the successor says at the end.
const READY: u8 = b'!';

/// Where successors come. The file goes with it.
#[derive(Debug)]
pub(crate) struct Door {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

/// One who wants to take over.
#[derive(Debug)]
pub(crate) struct Successor(UnixStream);

/// The daemon that was here before, once it has handed over.
#[derive(Debug)]
pub(crate) struct Predecessor(UnixStream);

impl Door {
    /// Opens it.
    ///
    /// # Errors
    /// The run directory cannot be written.
    pub(crate) fn open(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let listener =
            UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: tokio::net::UnixListener::from_std(listener)?, path })
    }

    /// Waits for a successor; None if `cancel` comes first.
    ///
    /// # Errors
    /// The socket broke.
    pub(crate) async fn wait(&self, cancel: &CancellationToken) -> Result<Option<Successor>> {
        let stream = tokio::select! {
            accepted = self.listener.accept() => accepted.context("the take-over socket broke")?.0,
            () = cancel.cancelled() => return Ok(None),
        };
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(Some(Successor(stream)))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next daemon replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Successor {
    /// Hands the descriptors over, and waits until the successor uses them. Blocks.
    ///
    /// # Errors
    /// It ended, or took too long.
    pub(crate) fn hand_over(mut self, descriptors: &[OwnedFd]) -> Result<()> {
        if descriptors.len() > MAX_DESCRIPTORS {
            bail!("{} sockets are too many to hand over", descriptors.len());
        }
        let descriptors: Vec<BorrowedFd> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.0, &[IoSlice::new(&[VERSION])], &mut control, SendFlags::NOSIGNAL)
            .context("the successor has gone")?;
        self.0.set_read_timeout(Some(SUCCESSION))?;
        let mut said = [0];
        match self.0.read(&mut said) {
            Ok(1) if said == [READY] => Ok(()),
            Ok(_) => bail!("the successor ended before it answered names"),
            Err(error) => Err(error).context("the successor did not come to answer names"),
        }
    }
}

/// Asks the daemon of a run directory for its descriptors; None where none runs. Blocks.
///
/// # Errors
/// It does not hand over.
pub(crate) fn take_over(run_dir: &Path) -> Result<Option<(Predecessor, Vec<OwnedFd>)>> {
    let Ok(stream) = UnixStream::connect(run_dir.join(SOCKET)) else { return Ok(None) };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut said = [0];
    let received = recvmsg(&stream, &mut [IoSliceMut::new(&mut said)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .context("the daemon that runs here does not hand over its sockets")?;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        bail!("the daemon that runs here ended instead of handing over its sockets; try again");
    }
    if said != [VERSION] || received.flags.contains(ReturnFlags::CTRUNC) {
        bail!(
            "the daemon that runs here hands over in a form that this version does not know; stop it first"
        );
    }
    Ok(Some((Predecessor(stream), descriptors)))
}

impl Predecessor {
    /// Lets it go.
    ///
    /// # Errors
    /// It has gone already, which it should not have.
    pub(crate) fn dismiss(mut self) -> Result<()> {
        self.0.write_all(&[READY]).context("the daemon that ran here has gone already")
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn what_was_sent_before_the_handover_is_received_after_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(take_over(folder.path()).unwrap().is_none(), "nobody is there");
        let door = Door::open(folder.path()).unwrap();
        let mode = std::fs::metadata(folder.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let path = folder.path().to_owned();
        let taking = tokio::task::spawn_blocking(move || take_over(&path).unwrap().unwrap());
        let successor = door.wait(&CancellationToken::new()).await.unwrap().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let handing = tokio::task::spawn_blocking(move || successor.hand_over(&[socket.into()]));
        let (predecessor, mut taken) = taking.await.unwrap();
        let socket = UdpSocket::from(taken.pop().unwrap());
        assert_eq!((taken.len(), socket.recv(&mut [0; 8]).unwrap()), (0, 1));
        predecessor.dismiss().unwrap();
        handing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_successor_that_ends_early_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let door = Door::open(folder.path()).unwrap();
        let path = folder.path().to_owned();
        let taking = tokio::task::spawn_blocking(move || drop(take_over(&path).unwrap()));
        let successor = door.wait(&CancellationToken::new()).await.unwrap().unwrap();
        let handed = tokio::task::spawn_blocking(move || successor.hand_over(&[])).await.unwrap();
        taking.await.unwrap();
        assert!(handed.unwrap_err().to_string().contains("ended before it answered names"));
        let cancel = CancellationToken::new();
        cancel.cancel();
        assert!(door.wait(&cancel).await.unwrap().is_none());
    }
}

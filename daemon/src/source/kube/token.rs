//! The token of a service account, from its file, in which the kubelet puts a new one while the daemon runs. The crate
//! `kube` would read it too, but cannot ask anything with one that ends with a newline, which client-go cuts off.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::kube::client::Body;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderValue};
use tower::util::MapRequestLayer;

/// After so long the file is read again, as by client-go.
const READ_EVERY: Duration = Duration::from_secs(60);

/// What the file said last, as a header, and when that was.
pub(super) struct Token {
    path: PathBuf,
    read: Mutex<(HeaderValue, Instant)>,
}

impl Token {
    pub(super) fn open(path: PathBuf, now: Instant) -> Result<Self, String> {
        let read = Mutex::new((read(&path)?, now));
        Ok(Self { path, read })
    }

    /// Puts it into every request.
    pub(super) fn layer(self) -> MapRequestLayer<impl FnMut(Request<Body>) -> Request<Body> + Clone> {
        let token = Arc::new(self);
        MapRequestLayer::new(move |mut request: Request<Body>| {
            request.headers_mut().insert(AUTHORIZATION, token.header(Instant::now()));
            request
        })
    }

    /// While there is no token in the file, the last one is good.
    fn header(&self, now: Instant) -> HeaderValue {
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(last.1) >= READ_EVERY {
            last.0 = read(&self.path).unwrap_or_else(|_| last.0.clone());
            last.1 = now;
        }
        last.0.clone()
    }
}

fn read(path: &Path) -> Result<HeaderValue, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let token = text.trim();
    let header = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
    let mut header = header.ok_or("there is no token in it")?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_read_after_a_minute_and_none_is_no_news() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let put = |text: &str| std::fs::write(&path, text).unwrap();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        put("old\n");
        let token = Token::open(path.clone(), begin).unwrap();
        put("new\n");
        assert_eq!(token.header(after(59)), "Bearer old");
        assert_eq!(token.header(after(60)), "Bearer new");
        put("\n");
        assert_eq!(token.header(after(120)), "Bearer new");
        put("newest");
        assert_eq!(token.header(after(179)), "Bearer new");
        assert_eq!(token.header(after(180)), "Bearer newest");
    }
}

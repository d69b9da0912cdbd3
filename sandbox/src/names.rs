//! The names that the API allows: DNS labels and names. Also what keeps a name on the command line from being a
//! path.

const LABEL_LENGTH: usize = 63;
const NAME_LENGTH: usize = 253;

/// RFC 1123, section 2.1; `path` names the field in the error.
pub(crate) fn label(path: &str, name: &str) -> Result<(), String> {
    if name.len() <= LABEL_LENGTH && is_label(name) {
        return Ok(());
    }
    Err(format!(
        "{path}: {name:?} is not a DNS label: at most 63 of a-z, 0-9 and -, - neither first nor last"
    ))
}

/// RFC 1123, section 2.1, of several labels.
pub(crate) fn subdomain(path: &str, name: &str) -> Result<(), String> {
    if name.len() <= NAME_LENGTH && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(format!("{path}: {name:?} is not a DNS name: at most 253 of a-z, 0-9, - and ."))
}

/// A search domain, which may end with a dot, be nothing else, or have a `_` as names of services do (RFC 2782).
pub(crate) fn search(path: &str, domain: &str) -> Result<(), String> {
    let name = domain.strip_suffix('.').unwrap_or(domain);
    if domain == "." || subdomain(path, &name.replace('_', "x")).is_ok() {
        return Ok(());
    }
    Err(format!("{path}: {domain:?} is not a search domain: at most 253 of a-z, 0-9, -, _ and ."))
}

fn is_label(label: &str) -> bool {
    let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
}

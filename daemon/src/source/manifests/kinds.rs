//! Which kind a document is, and words for what was found instead of what was expected. Pure. Called by
//! `text.rs`.

use model::Kind;
use serde_json::Value;

/// What a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// An object that a node uses.
    Used(Kind),
    /// A list, of one kind or of any.
    List(Option<Kind>),
    /// Anything else, by its name.
    Unused(String),
}

const CORE: &str = "v1";
const DISCOVERY: &str = "discovery.k8s.io/v1";

const fn api_version(kind: Kind) -> &'static str {
    match kind {
        Kind::Service | Kind::Endpoints | Kind::Namespace | Kind::Node | Kind::Pod => CORE,
        Kind::EndpointSlice => DISCOVERY,
    }
}

/// The kind of a document, or what is wrong with what it claims.
pub(super) fn identify(value: &Value, inherited: Option<Kind>) -> Result<Known, String> {
    let Value::Object(fields) = value else {
        return Err(format!("expected an object, found {}", describe(value)));
    };
    let text = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.as_str())),
        Some(other) => Err(format!("{field}: expected a string, found {}", describe(other))),
    };
    let kind = match (text("kind")?, inherited) {
        (Some(kind), _) => kind,
        (None, Some(inherited)) => return Ok(Known::Used(inherited)),
        (None, None) => return Err("kind: is missing".to_owned()),
    };
    let version = match (text("apiVersion")?, inherited) {
        (Some(version), _) => version,
        (None, Some(inherited)) => api_version(inherited),
        (None, None) => return Err("apiVersion: is missing".to_owned()),
    };
    known(kind, version)
}

fn known(kind: &str, version: &str) -> Result<Known, String> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    if !matches!(group, "" | "discovery.k8s.io") {
        return Ok(Known::Unused(kind.to_owned()));
    }
    if kind == "List" {
        return Ok(Known::List(None));
    }
    for used in Kind::ALL {
        let list = kind.strip_suffix("List") == Some(used.as_str());
        if kind != used.as_str() && !list {
            continue;
        }
        if version != api_version(used) {
            let right = api_version(used);
            return Err(format!("apiVersion: there is no {kind} in {version:?}, it is in {right:?}"));
        }
        return Ok(if list { Known::List(Some(used)) } else { Known::Used(used) });
    }
    match Kind::ALL.into_iter().find(|used| is_near(kind, used.as_str())) {
        Some(meant) => Err(format!("kind: there is no {kind:?}, perhaps {:?}", meant.as_str())),
        None => Ok(Known::Unused(kind.to_owned())),
    }
}

/// Misspelt: other case, or one letter off (two in a long word). `Job` is not a misspelt `Pod`.
fn is_near(kind: &str, used: &str) -> bool {
    let allowed = if used.len() > 5 { 2 } else { 1 };
    kind.eq_ignore_ascii_case(used) || distance(kind.as_bytes(), used.as_bytes()) <= allowed
}

/// Levenshtein's distance, row by row.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A value in a few words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Serde's sentence in the words of somebody who writes manifests.
pub(super) fn plain_words(sentence: &str) -> String {
    let parts = sentence
        .strip_prefix("invalid type: ")
        .or_else(|| sentence.strip_prefix("invalid value: "))
        .and_then(|rest| rest.split_once(", expected "));
    match parts {
        Some((found, expected)) => format!("expected {}, found {}", wanted(expected), found_words(found)),
        None => sentence.to_owned(),
    }
}

fn wanted(expected: &str) -> &str {
    match expected {
        "i32" | "i64" | "u16" | "u32" | "u64" => "an integer",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "IntOrString" => "an integer or a string",
        // The API's structs.
        other if other.starts_with(char::is_uppercase) || other.starts_with("struct ") => "an object",
        other => other,
    }
}

fn found_words(found: &str) -> String {
    let quoted = found.split_once('`').and_then(|(_, rest)| rest.strip_suffix('`'));
    match (found, quoted) {
        ("map", _) => "an object".to_owned(),
        ("sequence", _) => "a list".to_owned(),
        ("null" | "unit value", _) => "nothing".to_owned(),
        (_, Some(value)) => value.to_owned(),
        _ => found.strip_prefix("string ").unwrap_or(found).to_owned(),
    }
}

//! From the text of one file to its documents: YAML or JSON in, judged objects and problems out. Pure.
//!
//! A text that cannot be parsed is one fault of the whole file; an object that is wrong is a fault of its
//! own, and the other objects of the file count. Called by `folder.rs`.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use model::{Kind, Object, ObjectName};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kinds::{self, Known};
use super::written::{Written, WrittenService};
use crate::source::convert::{self, is_namespaced};
use crate::source::report::{Problem, Reason};

/// More text than this in one file is refused; 10,000 Services are 5 MiB.
const TEXT_MAX: usize = 64 << 20;
/// How deep lists may hold lists.
const LIST_DEPTH_MAX: usize = 4;

/// One object of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// `document 2` or `document 2, item 3`.
    pub(crate) place: String,
    /// What it claims to be, as far as that can be read.
    pub(crate) id: Option<(Kind, ObjectName)>,
    /// What it says.
    pub(crate) content: Content,
}

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A good object.
    Object(Box<Written>),
    /// An object that cannot be taken. The object that the file had before under the same name stays.
    Bad(Problem, Option<Box<Written>>),
    /// A kind that a node has no use for.
    Unused(String),
}

/// The documents of a file, in order.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Document>, Problem> {
    let broken = |what: String| Problem::new(Reason::Syntax, format!("{file}{what}"));
    if text.len() > TEXT_MAX {
        return Err(broken(format!(": larger than {} MiB", TEXT_MAX >> 20)));
    }
    let values = if file.ends_with(".json") { json(text) } else { yaml(text) };
    let mut reader = Reader { file, documents: Vec::new() };
    for (number, value) in values.map_err(broken)? {
        reader.take(&format!("document {number}"), value, None, 0);
    }
    Ok(reader.documents)
}

/// A stream of JSON values.
fn json(text: &str) -> Result<Vec<(usize, Value)>, String> {
    let stream = serde_json::Deserializer::from_str(text.trim_start_matches('\u{feff}')).into_iter();
    let numbered = stream.enumerate().map(|(index, value)| match value {
        Ok(value) => Ok((index + 1, value)),
        Err(error) => Err(format!(", document {}: not JSON: {error}", index + 1)),
    });
    numbered.collect()
}

/// A stream of YAML documents. It is cut at the `---` lines first, which no YAML value can contain, so that
/// documents have the numbers a reader would count.
fn yaml(text: &str) -> Result<Vec<(usize, Value)>, String> {
    let mut values = Vec::new();
    for (index, chunk) in chunks(text).into_iter().enumerate() {
        let number = index + 1;
        let value = serde_saphyr::from_str_with_options::<Option<Value>>(&chunk.text, options())
            .map_err(|error| format!(", document {number}, {}", yaml_fault(&error, chunk.first_line)))?;
        if let Some(value) = value.filter(|value| !value.is_null()) {
            values.push((number, value));
        }
    }
    Ok(values)
}

fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! { max_events: 20_000_000, max_nodes: 10_000_000 };
    serde_saphyr::options! { with_snippet: false, budget: budget }
}

fn yaml_fault(error: &serde_saphyr::Error, first_line: usize) -> String {
    let line = error.location().map_or(1, |location| usize::try_from(location.line()).unwrap_or(1).max(1));
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    // The line is said in front, counted in the file; options of the parser are nobody's business.
    let text = text.split(" at line ").next().unwrap_or_default();
    let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    format!("line {}: not YAML: {text}", first_line + line - 1)
}

struct Chunk {
    text: String,
    /// Its place in the file, counted from 1.
    first_line: usize,
}

fn chunks(text: &str) -> Vec<Chunk> {
    let mut chunks = vec![Chunk { text: String::new(), first_line: 1 }];
    for (index, line) in text.trim_start_matches('\u{feff}').split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if let Some(rest) = marker {
            // What stands behind the dashes belongs to the document; spaces keep the columns.
            chunks.push(Chunk { text: format!("   {rest}"), first_line: index + 1 });
        } else if let Some(chunk) = chunks.last_mut() {
            chunk.text.push_str(line);
        }
    }
    let nothing = |line: &str| line.trim().is_empty() || line.starts_with(['#', '%']);
    if chunks.len() > 1 && chunks[0].text.lines().all(nothing) {
        chunks.remove(0);
    }
    chunks
}

struct Reader<'a> {
    file: &'a str,
    documents: Vec<Document>,
}

impl Reader<'_> {
    /// Takes one value; `inherited` is the kind that the items of a typed list have.
    fn take(&mut self, place: &str, value: Value, inherited: Option<Kind>, depth: usize) {
        let known = match kinds::identify(&value, inherited) {
            Ok(known) => known,
            Err(fault) => return self.bad(place, None, Reason::BadKind, &fault),
        };
        match known {
            Known::Used(kind) => self.object(place, kind, value),
            Known::List(of) if depth < LIST_DEPTH_MAX => {
                let Value::Object(mut fields) = value else { return };
                let items = match fields.remove("items") {
                    None | Some(Value::Null) => return,
                    Some(Value::Array(items)) => items,
                    Some(other) => {
                        let fault = format!("items: expected a list, found {}", kinds::describe(&other));
                        return self.bad(place, None, Reason::BadObject, &fault);
                    }
                };
                for (index, item) in items.into_iter().enumerate() {
                    self.take(&format!("{place}, item {}", index + 1), item, of, depth + 1);
                }
            }
            Known::List(_) => self.bad(place, None, Reason::BadObject, "lists inside lists, too deep"),
            Known::Unused(kind) => {
                let content = Content::Unused(kind);
                self.documents.push(Document { place: place.to_owned(), id: None, content });
            }
        }
    }

    fn object(&mut self, place: &str, kind: Kind, value: Value) {
        let id = (kind, claimed_name(kind, &value));
        match object(kind, value) {
            Ok(Some(written)) => {
                let content = Content::Object(Box::new(written));
                self.documents.push(Document { place: place.to_owned(), id: Some(id), content });
            }
            // A slice that a node has no use for (R11).
            Ok(None) => {
                let content = Content::Unused("EndpointSlice of names or of no service".to_owned());
                self.documents.push(Document { place: place.to_owned(), id: Some(id), content });
            }
            Err(fault) => self.bad(place, Some(id), Reason::BadObject, &fault),
        }
    }

    fn bad(&mut self, place: &str, id: Option<(Kind, ObjectName)>, reason: Reason, fault: &str) {
        let who = id.as_ref().map(|(kind, name)| format!(", {} {name}", kind.as_str())).unwrap_or_default();
        let problem = Problem::new(reason, format!("{}, {place}{who}: {fault}", self.file));
        let content = Content::Bad(problem, None);
        self.documents.push(Document { place: place.to_owned(), id, content });
    }
}

/// The name that an object claims, for lines about it, before it is judged.
fn claimed_name(kind: Kind, value: &Value) -> ObjectName {
    let text = |field: &str| value.get("metadata").and_then(|metadata| metadata.get(field)?.as_str());
    let name = text("name").unwrap_or("(without a name)");
    if is_namespaced(kind) {
        ObjectName::new(text("namespace").unwrap_or("default"), name)
    } else {
        ObjectName::cluster_scoped(name)
    }
}

fn object(kind: Kind, value: Value) -> Result<Option<Written>, String> {
    let plain = |object| Ok(Some(Written::Plain(object)));
    match kind {
        Kind::Service => {
            let object: core::Service = typed(value)?;
            let service = convert::service(&object).map_err(|bad| bad.fault.to_string())?;
            let written = WrittenService::new(service, &object).map_err(|fault| fault.to_string())?;
            Ok(Some(Written::Service(written)))
        }
        Kind::EndpointSlice => {
            let object: discovery::EndpointSlice = typed(value)?;
            let slice = convert::endpoint_slice(&object).map_err(|bad| bad.fault.to_string())?;
            Ok(slice.map(|slice| Written::Plain(Object::EndpointSlice(slice))))
        }
        Kind::Endpoints => {
            let object: core::Endpoints = typed(value)?;
            plain(Object::Endpoints(convert::endpoints(&object).map_err(|bad| bad.fault.to_string())?))
        }
        Kind::Namespace => {
            let object: core::Namespace = typed(value)?;
            plain(Object::Namespace(convert::namespace(&object).map_err(|bad| bad.fault.to_string())?))
        }
        Kind::Node => {
            let object: core::Node = typed(value)?;
            plain(Object::Node(convert::node(&object).map_err(|bad| bad.fault.to_string())?))
        }
        Kind::Pod => {
            let object: core::Pod = typed(value)?;
            plain(Object::Pod(convert::pod(&object).map_err(|bad| bad.fault.to_string())?))
        }
    }
}

/// The API's type, or the field that does not fit it.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let fault = kinds::plain_words(&error.inner().to_string());
        if path == "." { fault } else { format!("{path}: {fault}") }
    })
}

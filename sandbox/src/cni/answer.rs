//! The result of ADD, as each version of the specification wants it. Pure; `commands` fills it in, and nothing
//! reads it back but the runtime.

use serde_json::{Map, Value, json};

use super::request::Version;
use crate::attach::gateway;
use crate::attachment::{Attachment, End, mac_address};

/// What was attached: the host end, then the pod's, to which every address belongs.
pub(super) fn answer(attachment: &Attachment, sandbox: &str, mtu: u32, version: Version) -> Value {
    let interface = |name: &str, end: End| {
        let mac = mac_address(&attachment.container_id, &attachment.ifname, end);
        let mut interface =
            Map::from_iter([("name".to_owned(), json!(name)), ("mac".to_owned(), json!(mac.to_string()))]);
        if version >= Version::V1_1_0 {
            interface.insert("mtu".to_owned(), json!(mtu));
        }
        if end == End::Pod {
            interface.insert("sandbox".to_owned(), json!(sandbox));
        }
        Value::Object(interface)
    };
    let ips = attachment.addresses.iter().map(|ip| {
        let (length, family) = if ip.is_ipv4() { (32, "4") } else { (128, "6") };
        let mut entry = Map::from_iter([
            ("address".to_owned(), json!(format!("{ip}/{length}"))),
            ("gateway".to_owned(), json!(gateway(*ip))),
            ("interface".to_owned(), json!(1)),
        ]);
        if version < Version::V1_0_0 {
            entry.insert("version".to_owned(), json!(family));
        }
        Value::Object(entry)
    });
    let routes = attachment.addresses.iter().map(|ip| {
        let everything = if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        json!({"dst": everything, "gw": gateway(*ip)})
    });
    json!({
        "cniVersion": version.as_str(),
        "interfaces": [interface(&attachment.link, End::Host), interface(&attachment.ifname, End::Pod)],
        "ips": ips.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "dns": {},
    })
}

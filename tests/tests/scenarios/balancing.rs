//! Connections reach endpoints: which, how evenly, and who is seen on either side.
//!
//! Called by clients in pods where who is seen matters, and by the node where it does not.

use anyhow::{Result, ensure};
use tests::{Answers, Kind, Node, Options, Pod, until};

use crate::yaml::{service, slice};

/// The bound on chi-square for three equal shares that chance exceeds once in a million runs.
pub(crate) const CHI_SQUARE: f64 = 27.6;

/// Asks once answers come from exactly these.
pub(crate) fn settled(node: &Node, kind: Kind, target: &str, names: &[&str]) -> Result<Answers> {
    until(&format!("{target} to be answered by {names:?}"), || {
        let answers = node.ask(kind, target, &["--count", "60", "--timeout", "500"])?;
        answers.only_from(names).map(|()| answers)
    })
}

#[test]
fn scenario_01_pod_reaches_endpoint_of_service() {
    Node::run(Options::default(), |node| {
        node.write(
            "web.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: t}\nspec:\n  clusterIP: 10.96.1.1\n  \
             selector: {app: web}\n  ports: [{name: h, port: 80, targetPort: 8080}, {name: d, port: 53, targetPort: 5353, protocol: UDP}]\n",
        )?;
        let ports = [("http", Kind::Tcp, 8080), ("dns", Kind::Udp, 5353)];
        Pod::serve(node, "t/server", &[("app", "web")], &ports)?;
        let client = Pod::client(node, "t/client")?;
        let own = client.ip4()?.to_string();
        for (kind, target) in [(Kind::Tcp, "10.96.1.1:80"), (Kind::Udp, "10.96.1.1:53")] {
            let answers = until("the pod to be an endpoint", || {
                let answers = client.ask(node, kind, target, &["--count", "5", "--timeout", "500"])?;
                answers.only_from(&["server"]).map(|()| answers)
            })?;
            ensure!(answers.seen_as.keys().eq([&own]), "the server sees {:?}, not {own}", answers.seen_as);
            ensure!(answers.peers.keys().eq([target]), "the client sees {:?}, not {target}", answers.peers);
        }
        Ok(())
    });
}

#[test]
fn scenario_02_three_endpoints_get_equal_shares() {
    Node::run(Options::default(), |node| {
        let addresses = ["198.18.0.1", "198.18.0.2", "198.18.0.3"];
        for (name, address) in ["a", "b", "c"].iter().zip(addresses) {
            node.serve(name, &[address], &[(Kind::Tcp, 80), (Kind::Udp, 80)])?;
        }
        let ports = "{name: t, port: 80}, {name: u, port: 80, protocol: UDP}";
        node.write(
            "web.yaml",
            &(service("web", "10.96.1.1", ports, "") + &slice("web-1", "web", ports, &addresses)),
        )?;
        let client = Pod::client(node, "t/client")?;
        for kind in [Kind::Tcp, Kind::Udp] {
            settled(node, kind, "10.96.1.1:80", &["a", "b", "c"])?;
            let answers = client.ask(node, kind, "10.96.1.1:80", &["--count", "3000"])?;
            answers.only_from(&["a", "b", "c"])?;
            ensure!(answers.chi_square() < CHI_SQUARE, "{:?}", answers.from);
        }
        Ok(())
    });
}

#[test]
fn scenario_15_pod_reaches_itself_through_its_service() {
    Node::run(Options::default(), |node| {
        let spec = "spec:\n  clusterIP: 10.96.1.1\n  selector: {app: web}\n  ports: [{name: t, port: 80, targetPort: 8080}, \
                    {name: u, port: 80, targetPort: 8080, protocol: UDP}]\n";
        node.write(
            "web.yaml",
            &format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: t}}\n{spec}"),
        )?;
        let ports = [("t", Kind::Tcp, 8080), ("u", Kind::Udp, 8080)];
        let pod = Pod::serve(node, "t/only", &[("app", "web")], &ports)?;
        for kind in [Kind::Tcp, Kind::Udp] {
            until("the pod to reach itself", || {
                pod.ask(node, kind, "10.96.1.1:80", &["--count", "5", "--timeout", "500"])?
                    .only_from(&["only"])
            })?;
        }
        Ok(())
    });
}

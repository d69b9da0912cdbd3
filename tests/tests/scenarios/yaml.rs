//! Manifests in few words. All objects are in the namespace `t`.
//!
//! Each function returns one document that ends with `---`, so that they can be put together.

/// A Service without selector; `more` is further lines of its spec.
pub(crate) fn service(name: &str, ip: &str, ports: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: t}}\nspec:\n  clusterIP: {ip}\n  \
         ports: [{ports}]\n{more}---\n"
    )
}

/// An EndpointSlice of `service` whose endpoints are ready.
pub(crate) fn slice(name: &str, service: &str, ports: &str, addresses: &[&str]) -> String {
    let endpoints: Vec<String> =
        addresses.iter().map(|address| format!("{{addresses: [\"{address}\"]}}")).collect();
    let family = if addresses.iter().any(|address| address.contains(':')) { "IPv6" } else { "IPv4" };
    slice_of(name, service, ports, family, &endpoints.join(", "))
}

/// An EndpointSlice with endpoints as they are written.
pub(crate) fn slice_of(name: &str, service: &str, ports: &str, family: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: t\n  \
         labels: {{kubernetes.io/service-name: {service}}}\naddressType: {family}\nports: [{ports}]\n\
         endpoints: [{endpoints}]\n---\n"
    )
}

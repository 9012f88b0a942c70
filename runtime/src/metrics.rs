//! Metrics of both daemons.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Registers `nettune_build_info`, with the component and its version as labels.
pub fn register_build_info(
    registry: &mut Registry,
    component: &'static str,
    version: &'static str,
) {
    registry.register(
        "nettune_build",
        "Component and version of this process",
        Info::new([("component", component), ("version", version)]),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_a_label() {
        let mut registry = Registry::default();
        register_build_info(&mut registry, "nettune-agent", "1.2.3");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(
            text.contains(r#"nettune_build_info{component="nettune-agent",version="1.2.3"} 1"#),
            "{text}"
        );
    }
}

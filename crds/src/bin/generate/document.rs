//! docs/api.md: the fields of both kinds and the allow-list, from the schema itself.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use nettune_sizing::{INTERFACE_FAMILIES, Scope, allow_list};

const HEAD: &str = "# API reference

Generated from `crds/src` by `cargo xtask generate`; do not edit.
`kubectl explain nodenetworktuning.spec --recursive` shows the same in a cluster.
";

/// The whole page.
pub(crate) fn api(crds: &[CustomResourceDefinition]) -> String {
    let mut page = HEAD.to_owned();
    for crd in crds {
        kind(&mut page, crd);
    }
    allowed(&mut page);
    page
}

fn kind(page: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    for version in &crd.spec.versions {
        let _ = writeln!(
            page,
            "\n## {}\n\n`{}/{}`, {}, short name `{}`.\n",
            names.kind,
            crd.spec.group,
            version.name,
            if crd.spec.scope == "Cluster" {
                "cluster-scoped"
            } else {
                "namespaced"
            },
            names
                .short_names
                .iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
        );
        let schema = version
            .schema
            .as_ref()
            .and_then(|schema| schema.open_api_v3_schema.as_ref());
        let Some(schema) = schema else { continue };
        if let Some(text) = &schema.description {
            let _ = writeln!(page, "{text}\n");
        }
        page.push_str("| field | type | description |\n|---|---|---|\n");
        fields(page, "", schema);
    }
}

fn fields(page: &mut String, prefix: &str, schema: &JSONSchemaProps) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{prefix}{name}");
        if path == "metadata" || path == "apiVersion" || path == "kind" {
            continue;
        }
        let required = schema
            .required
            .iter()
            .flatten()
            .any(|required| required == name);
        let _ = writeln!(
            page,
            "| `{path}` | {}{} | {} |",
            kind_of(field),
            if required { ", required" } else { "" },
            meaning(field),
        );
        fields(page, &format!("{path}."), field);
        if let Some(JSONSchemaPropsOrArray::Schema(item)) = &field.items {
            fields(page, &format!("{path}[]."), item);
        }
    }
}

fn kind_of(field: &JSONSchemaProps) -> String {
    let type_ = field.type_.as_deref().unwrap_or("any");
    match &field.enum_ {
        Some(values) => values
            .iter()
            .map(|value| format!("`{}`", value.0.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", "),
        None if type_ == "array" => match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => {
                format!("list of {}", item.type_.as_deref().unwrap_or("any"))
            }
            _ => "list".to_owned(),
        },
        None => type_.to_owned(),
    }
}

fn meaning(field: &JSONSchemaProps) -> String {
    let mut text = field
        .description
        .as_deref()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|");
    for rule in field.x_kubernetes_validations.iter().flatten() {
        if let Some(message) = &rule.message {
            let _ = write!(text, " Validation: {message}.");
        }
    }
    text
}

fn allowed(page: &mut String) {
    page.push_str(
        "\n## The allow-list of sysctls

nettune can write only these sysctls: the list is compiled into operator and agent.

Scope: *node*: the value applies to the whole node. *inherited*: network namespaces that are created
later start with a copy. *host*: only the host network namespace; pods keep the kernel's default.

Block: the part of a tuning that manages the sysctl. Such a name is rejected in `spec.sysctls`.

| sysctl | scope | block |
|---|---|---|
",
    );
    for listed in allow_list() {
        let reach = match listed.scope {
            Scope::Node => "node",
            Scope::PodsInherit => "inherited",
            Scope::HostNamespace => "host",
        };
        let block = listed
            .block
            .map(|block| format!("`{}`", block.name()))
            .unwrap_or_default();
        let _ = writeln!(page, "| `{}` | {reach} | {block} |", listed.name);
    }
    for family in INTERFACE_FAMILIES {
        for leaf in family.leaves {
            let _ = writeln!(page, "| `{}.INTERFACE.{leaf}` | host | |", family.prefix);
        }
    }
}

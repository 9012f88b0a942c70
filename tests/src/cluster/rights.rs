//! RBAC of operators and agents.

pub const OPERATOR: &str = "system:serviceaccount:nettune-system:nettune-operator";
pub const AGENT: &str = "system:serviceaccount:nettune-system:nettune-agent";

pub(super) const ROLES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: nettune-operator}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
- {apiGroups: [nettune.dev], resources: [nodenetworktunings], verbs: [get, list, watch]}
- {apiGroups: [nettune.dev], resources: [nodenetworktunings/status], verbs: [update, patch]}
- {apiGroups: [nettune.dev], resources: [nodenetworkprofiles], verbs: [get, list, watch, create, update, patch, delete]}
- {apiGroups: [nettune.dev], resources: [nodenetworkprofiles/status], verbs: [patch]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch, create, update]}
- {apiGroups: ["", events.k8s.io], resources: [events], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: nettune-agent}
rules:
- {apiGroups: [nettune.dev], resources: [nodenetworkprofiles], verbs: [get, list, watch]}
- {apiGroups: [nettune.dev], resources: [nodenetworkprofiles/status], verbs: [patch]}
"#;

/// Binds the roles; without it operators and agents have no rights.
pub const BINDINGS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: nettune-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nettune-operator}
subjects: [{kind: ServiceAccount, namespace: nettune-system, name: nettune-operator}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: nettune-agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nettune-agent}
subjects: [{kind: ServiceAccount, namespace: nettune-system, name: nettune-agent}]
"#;

//! A tuning's node selector, ready to match.

use kube::core::{Expression, Selector, SelectorExt};
use std::collections::BTreeMap;

use crate::{NodeSelector, Requirement, SelectorOperator};

/// A node selector that is known to be valid.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeLabels(Selector);

/// A requirement that no schema of today would let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// In or NotIn without a value.
    #[error("the requirement on {key:?} needs values for its operator")]
    NoValues {
        /// The label's key.
        key: String,
    },
    /// Exists or DoesNotExist with values.
    #[error("the requirement on {key:?} takes no values with its operator")]
    NeedlessValues {
        /// The label's key.
        key: String,
    },
}

impl NodeLabels {
    /// Whether a node with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }
}

impl TryFrom<&NodeSelector> for NodeLabels {
    type Error = InvalidSelector;

    fn try_from(selector: &NodeSelector) -> Result<Self, Self::Error> {
        let labels = selector
            .match_labels
            .iter()
            .map(|(key, value)| Ok(Expression::Equal(key.clone(), value.clone())));
        let requirements = selector.match_expressions.iter().map(expression);
        labels
            .chain(requirements)
            .collect::<Result<Selector, _>>()
            .map(Self)
    }
}

fn expression(requirement: &Requirement) -> Result<Expression, InvalidSelector> {
    let key = requirement.key.clone();
    let values = requirement.values.iter().cloned().collect();
    let takes_values = matches!(
        requirement.operator,
        SelectorOperator::In | SelectorOperator::NotIn
    );
    match (takes_values, requirement.values.is_empty()) {
        (true, true) => return Err(InvalidSelector::NoValues { key }),
        (false, false) => return Err(InvalidSelector::NeedlessValues { key }),
        _ => {}
    }
    Ok(match requirement.operator {
        SelectorOperator::In => Expression::In(key, values),
        SelectorOperator::NotIn => Expression::NotIn(key, values),
        SelectorOperator::Exists => Expression::Exists(key),
        SelectorOperator::DoesNotExist => Expression::DoesNotExist(key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn an_empty_selector_selects_every_node() {
        let selector = NodeLabels::try_from(&NodeSelector::default()).unwrap();
        assert!(selector.matches(&labels(&[])));
    }

    #[test]
    fn labels_and_requirements_must_all_match() {
        let selector = NodeSelector {
            match_labels: labels(&[("pool", "big")]),
            match_expressions: vec![Requirement {
                key: "zone".into(),
                operator: SelectorOperator::NotIn,
                values: vec!["b".into()],
            }],
        };
        let selector = NodeLabels::try_from(&selector).unwrap();
        assert!(selector.matches(&labels(&[("pool", "big"), ("zone", "a")])));
        assert!(selector.matches(&labels(&[("pool", "big")])));
        assert!(!selector.matches(&labels(&[("pool", "big"), ("zone", "b")])));
        assert!(!selector.matches(&labels(&[("zone", "a")])));
    }

    #[test]
    fn values_that_the_operator_does_not_take_are_an_error() {
        let selector = NodeSelector {
            match_labels: BTreeMap::new(),
            match_expressions: vec![Requirement {
                key: "zone".into(),
                operator: SelectorOperator::Exists,
                values: vec!["b".into()],
            }],
        };
        assert!(NodeLabels::try_from(&selector).is_err());
    }
}

//! Converts a sized sysctl to its entry in a profile, and back.

use nettune_sizing::{
    DesiredValue, InvalidBounds, InvalidKey, InvalidValue, SizedSysctl, SysctlKey, Value,
};

use crate::profile::{ProfileSysctl, Rule};

/// Why a sysctl of a profile cannot be used. The others are applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProfileSysctl {
    #[error(transparent)]
    Key(#[from] InvalidKey),
    #[error(transparent)]
    Value(#[from] InvalidValue),
    #[error("a limit must be a whole number from 0 to 4294967295, not {value:?}")]
    LimitNotANumber { value: String },
    #[error(transparent)]
    Bounds(#[from] InvalidBounds),
}

impl ProfileSysctl {
    /// The sysctl and its desired value.
    ///
    /// # Errors
    /// When the name is not on the allow-list, the value is invalid, or the bounds of a limit are not
    /// numbers in order.
    pub fn parse(&self) -> Result<(SysctlKey, DesiredValue), InvalidProfileSysctl> {
        let key = SysctlKey::parse(&self.name)?;
        let value = Value::parse(&self.value)?;
        let wanted = match self.rule {
            Rule::Exact => DesiredValue::Exact(value),
            Rule::AtLeast => {
                let floor = limit(value.as_str())?;
                let ceiling = match self.ceiling {
                    None => floor,
                    Some(ceiling) => limit(&ceiling.to_string())?,
                };
                DesiredValue::limit(floor, ceiling)?
            }
        };
        Ok((key, wanted))
    }
}

fn limit(text: &str) -> Result<u64, InvalidProfileSysctl> {
    text.parse::<u32>()
        .map(u64::from)
        .map_err(|_| InvalidProfileSysctl::LimitNotANumber {
            value: text.to_owned(),
        })
}

impl From<&SizedSysctl> for ProfileSysctl {
    fn from(sized: &SizedSysctl) -> Self {
        let (rule, ceiling) = match &sized.wanted {
            DesiredValue::Exact(_) => (Rule::Exact, None),
            DesiredValue::AtLeast(bounds) => (
                Rule::AtLeast,
                Some(i64::try_from(bounds.ceiling()).unwrap_or(i64::MAX)),
            ),
        };
        Self {
            name: sized.key.name().to_owned(),
            rule,
            value: sized.wanted.value().as_str().to_owned(),
            ceiling,
            reason: sized.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converting_to_a_profile_and_back_changes_nothing() {
        let sized = SizedSysctl {
            key: SysctlKey::parse("net.netfilter.nf_conntrack_max").unwrap(),
            wanted: DesiredValue::at_least(131_072, 1_048_576),
            reason: "because".into(),
        };
        let (key, wanted) = ProfileSysctl::from(&sized).parse().unwrap();
        assert_eq!((key, wanted), (sized.key, sized.wanted));
    }

    #[test]
    fn a_limit_must_be_a_number() {
        let sysctl = ProfileSysctl {
            name: "net.netfilter.nf_conntrack_max".into(),
            rule: Rule::AtLeast,
            value: "lots".into(),
            ceiling: None,
            reason: String::new(),
        };
        assert!(matches!(
            sysctl.parse(),
            Err(InvalidProfileSysctl::LimitNotANumber { .. })
        ));
    }
}

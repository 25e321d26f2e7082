//! What an environment exposes, as a value that a peer can ask for: the artifact `describe`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Environment, Shape, environment::Artifact, incoming::full_name};

/// What a peer exposes: the value of its artifact `describe()`. Its text is made to be read.
///
/// ```
/// # use hbi::env::{Described, DescribedKind, Description};
/// # let artifact = Described {
/// #     name: "calc::add".into(), kind: DescribedKind::Method,
/// #     parameters: vec![("a".into(), "i64".into())], returns: "i64".into(), docs: "Adds.".into(),
/// # };
/// let described = Description { artifacts: vec![artifact] };
/// assert_eq!(described.to_string(), "calc::add(a: i64) -> i64\n    Adds.\n");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// What there is, by name.
    pub artifacts: Vec<Described>,
}

/// One artifact of a [`Description`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its name in scripts.
    pub name: String,
    /// What it is.
    pub kind: DescribedKind,
    /// Names and Rust types of its parameters; empty for functions, whose types are not kept.
    pub parameters: Vec<(String, String)>,
    /// The Rust type of its answer, where it is known.
    pub returns: String,
    /// Its documentation.
    pub docs: String,
}

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DescribedKind {
    /// A method of a service.
    Method,
    /// A method that answers nothing.
    Notify,
    /// A method that takes the conversation.
    Converse,
    /// A function.
    Function,
    /// A constructor.
    Constructor,
    /// A value.
    Value,
    /// An object by reference.
    Reactor,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for artifact in &self.artifacts {
            f.write_str(&artifact.name)?;
            let parameters: Vec<_> = artifact
                .parameters
                .iter()
                .map(|(name, ty)| {
                    if ty.is_empty() {
                        name.clone()
                    } else {
                        format!("{name}: {ty}")
                    }
                })
                .collect();
            match artifact.kind {
                DescribedKind::Value => f.write_str(": a value")?,
                DescribedKind::Reactor => f.write_str(": a reactor")?,
                DescribedKind::Function => f.write_str("(…): a function")?,
                DescribedKind::Notify => write!(f, "({}): no answer", parameters.join(", "))?,
                DescribedKind::Converse => {
                    write!(f, "({}): a conversation", parameters.join(", "))?;
                }
                _ => {
                    write!(f, "({})", parameters.join(", "))?;
                    if !artifact.returns.is_empty() && artifact.returns != "()" {
                        write!(f, " -> {}", artifact.returns)?;
                    }
                }
            }
            f.write_str("\n")?;
            for line in artifact.docs.lines() {
                writeln!(f, "    {}", line.trim())?;
            }
        }
        Ok(())
    }
}

pub(super) fn describe(env: &Environment) -> Description {
    let mut artifacts = Vec::new();
    for service in &env.services {
        let table = service.table();
        artifacts.extend(table.methods.iter().map(|method| {
            Described {
                name: full_name(table.name, method.name),
                kind: match method.shape {
                    Shape::Value => DescribedKind::Method,
                    Shape::Notify => DescribedKind::Notify,
                    Shape::Converse => DescribedKind::Converse,
                },
                parameters: method
                    .params
                    .iter()
                    .map(|p| (p.name.into(), p.ty.into()))
                    .collect(),
                returns: method.returns.into(),
                docs: method.docs.trim().into(),
            }
        }));
    }
    for (name, artifact) in &env.artifacts {
        let mut parameters = Vec::new();
        let (mut returns, mut docs) = (String::new(), String::new());
        let kind = match artifact {
            Artifact::Function(_) => DescribedKind::Function,
            Artifact::Constructor(_, fields) => {
                parameters = fields
                    .iter()
                    .map(|&field| (field.into(), String::new()))
                    .collect();
                returns = name.clone();
                DescribedKind::Constructor
            }
            Artifact::Value(_) => DescribedKind::Value,
            Artifact::Object(object) => {
                let methods = object
                    .service
                    .table()
                    .methods
                    .iter()
                    .map(|method| method.name);
                docs = format!("methods: {}", methods.collect::<Vec<_>>().join(", "));
                DescribedKind::Reactor
            }
            Artifact::Describe => {
                returns = "hbi::env::Description".into();
                docs = "What is exposed here.".into();
                DescribedKind::Method
            }
        };
        artifacts.push(Described {
            name: name.clone(),
            kind,
            parameters,
            returns,
            docs,
        });
    }
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    Description { artifacts }
}

//! The trait as the rest of the macro sees it. Parsing takes what is there; whether it can be
//! exposed is asked by `check`.

use proc_macro2::TokenStream;
use syn::{
    Attribute, FnArg, Ident, ItemTrait, LitStr, Meta, Pat, Path, ReturnType, Token, TraitItem,
    TraitItemFn, Type, parse::Parser, parse_quote, punctuated::Punctuated,
};

use crate::{
    errors::Errors,
    options,
    types::{is_named, is_unit, mentions, type_arguments},
    words,
};

/// A trait under `#[hbi::service]`.
pub(crate) struct Service {
    /// Where hbi is: `::hbi`.
    pub(crate) root: Path,
    /// `name = "..."`.
    pub(crate) name: Option<LitStr>,
    /// `flat`.
    pub(crate) flat: Option<Ident>,
    /// The whole trait, without the attributes that are ours.
    pub(crate) item: ItemTrait,
    /// Its methods, in order.
    pub(crate) methods: Vec<Method>,
}

/// A method of the trait.
pub(crate) struct Method {
    /// The method, without the attributes that are ours.
    pub(crate) item: TraitItemFn,
    pub(crate) options: Options,
    /// What it takes after the receiver.
    pub(crate) params: Vec<Param>,
    pub(crate) answer: Answer,
    /// Whether it can be exposed: no error stands on it.
    pub(crate) sound: bool,
}

/// What `#[hbi(...)]` says.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) notify: Option<Ident>,
    pub(crate) converse: Option<Ident>,
    pub(crate) no_cancel: Option<Ident>,
    pub(crate) parallel: Option<Ident>,
    pub(crate) idempotent: Option<Ident>,
    pub(crate) rename: Option<LitStr>,
}

/// A parameter after the receiver.
pub(crate) struct Param {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) pat: Pat,
    pub(crate) ty: Type,
    pub(crate) role: Role,
}

/// What a parameter is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `cx: &Caller`: who calls.
    Caller,
    /// `co: HoCo`: the conversation.
    Conversation,
    /// Comes from the peer.
    Argument,
}

/// What a method answers.
pub(crate) struct Answer {
    /// The type as it was written; `()` where none was.
    pub(crate) written: Type,
    /// The value.
    pub(crate) value: Type,
    /// Whether it is a `Result`.
    pub(crate) fallible: bool,
    /// The method's own error, where the `Result` names one that is not hbi's.
    pub(crate) error: Option<Type>,
    /// The stub of the object, where the value is a reactor.
    pub(crate) object: Option<Type>,
}

impl Service {
    pub(crate) fn parse(options: TokenStream, mut item: ItemTrait, errors: &mut Errors) -> Self {
        let methods = item
            .items
            .iter_mut()
            .filter_map(|item| match item {
                TraitItem::Fn(method) => Some(Method::parse(method, errors)),
                _ => None,
            })
            .collect();
        let root = parse_quote!(::hbi);
        let mut service = Self {
            root,
            name: None,
            flat: None,
            item,
            methods,
        };
        match Punctuated::<Meta, Token![,]>::parse_terminated.parse2(options) {
            Ok(options) => {
                for option in options {
                    service.option(option, errors);
                }
            }
            Err(error) => errors.add(error),
        }
        service
    }

    fn option(&mut self, option: Meta, errors: &mut Errors) {
        match &option {
            Meta::Path(path) if path.is_ident("flat") => {
                self.flat = path.get_ident().cloned();
            }
            Meta::NameValue(pair) if pair.path.is_ident("name") => {
                self.name = options::string(&pair.value, errors);
            }
            Meta::NameValue(pair) if pair.path.is_ident("crate") => {
                if let Some(root) = options::path(&pair.value, errors) {
                    self.root = root;
                }
            }
            _ => errors.on(
                &option,
                "expected `name = \"...\"`, `flat` or `crate = path`",
            ),
        }
    }

    /// The namespace of its methods in scripts; empty for a flat one.
    pub(crate) fn namespace(&self) -> String {
        match (&self.flat, &self.name) {
            (Some(_), _) => String::new(),
            (None, Some(name)) => name.value(),
            (None, None) => words::snake_case(&words::plain(&self.item.ident)),
        }
    }
}

impl Method {
    /// Takes our attributes off the method, and looks at the rest.
    fn parse(item: &mut TraitItemFn, errors: &mut Errors) -> Self {
        let mut options = Options::default();
        item.attrs.retain(|attr| {
            let ours = attr.path().is_ident("hbi");
            if ours {
                options.parse(attr, errors);
            }
            !ours
        });
        let params = item.sig.inputs.iter().filter_map(Param::parse).collect();
        let answer = Answer::parse(&item.sig.output);
        Self {
            item: item.clone(),
            options,
            params,
            answer,
            sound: true,
        }
    }

    /// The name in scripts.
    pub(crate) fn name(&self) -> String {
        match &self.options.rename {
            Some(name) => name.value(),
            None => words::plain(&self.item.sig.ident),
        }
    }

    /// The arguments that come from the peer.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &Param> {
        self.params
            .iter()
            .filter(|param| param.role == Role::Argument)
    }

    /// Its attributes of a kind: `cfg`, `doc`.
    pub(crate) fn attrs(&self, name: &'static str) -> impl Iterator<Item = &Attribute> {
        self.item
            .attrs
            .iter()
            .filter(move |attr| attr.path().is_ident(name))
    }

    /// Whether a stream or an object stands in its signature: they belong to one connection.
    pub(crate) fn is_of_connection(&self) -> bool {
        let names = ["Items", "Data", "Reactor"];
        let holds = |ty: &Type| names.iter().any(|name| mentions(ty, name));
        holds(&self.answer.written) || self.arguments().any(|param| holds(&param.ty))
    }

    pub(crate) fn is_async(&self) -> bool {
        self.item.sig.asyncness.is_some()
    }
}

impl Options {
    fn parse(&mut self, attr: &Attribute, errors: &mut Errors) {
        match attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) {
            Ok(options) => {
                for option in options {
                    self.option(&option, errors);
                }
            }
            Err(error) => errors.add(error),
        }
    }

    fn option(&mut self, option: &Meta, errors: &mut Errors) {
        let flag = match option {
            Meta::Path(path) => path.get_ident(),
            Meta::NameValue(pair) if pair.path.is_ident("rename") => {
                self.rename = options::string(&pair.value, errors);
                return;
            }
            _ => None,
        };
        let place = match flag.map(Ident::to_string).as_deref() {
            Some("notify") => &mut self.notify,
            Some("converse") => &mut self.converse,
            Some("no_cancel") => &mut self.no_cancel,
            Some("parallel") => &mut self.parallel,
            Some("idempotent") => &mut self.idempotent,
            _ => {
                errors.on(
                    option,
                    "expected `notify`, `converse`, `no_cancel`, `parallel`, `idempotent` or \
                     `rename = \"...\"`",
                );
                return;
            }
        };
        *place = flag.cloned();
    }
}

impl Param {
    fn parse(input: &FnArg) -> Option<Self> {
        let FnArg::Typed(typed) = input else {
            return None;
        };
        let ty = (*typed.ty).clone();
        let role = match &ty {
            Type::Reference(reference) if is_named(&reference.elem, "Caller") => Role::Caller,
            Type::Reference(reference) if is_named(&reference.elem, "HoCo") => Role::Conversation,
            ty if is_named(ty, "HoCo") => Role::Conversation,
            _ => Role::Argument,
        };
        Some(Self {
            attrs: typed.attrs.clone(),
            pat: (*typed.pat).clone(),
            ty,
            role,
        })
    }

    /// Its name; `None` for a pattern, which is an error.
    pub(crate) fn ident(&self) -> Option<&Ident> {
        match &self.pat {
            Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => Some(&pat.ident),
            _ => None,
        }
    }
}

impl Answer {
    fn parse(output: &ReturnType) -> Self {
        let written = match output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, ty) => (**ty).clone(),
        };
        let outcome = type_arguments(&written);
        let fallible = is_named(&written, "Result") && !outcome.is_empty();
        let (value, error) = match (fallible, &outcome[..]) {
            (true, [value]) => ((*value).clone(), None),
            (true, [value, error, ..]) => (
                (*value).clone(),
                Some((*error).clone()).filter(|error| !is_hbi_error(error)),
            ),
            _ => (written.clone(), None),
        };
        let object = match &type_arguments(&value)[..] {
            [stub] if is_named(&value, "Reactor") => Some((*stub).clone()),
            _ => None,
        };
        Self {
            written,
            value,
            fallible,
            error,
            object,
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        is_unit(&self.written)
    }
}

/// Whether this is `hbi::Error`, which is no error of the method's own.
fn is_hbi_error(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if {
        let segments = &path.path.segments;
        segments.len() == 2 && segments[0].ident == "hbi" && segments[1].ident == "Error"
    })
}

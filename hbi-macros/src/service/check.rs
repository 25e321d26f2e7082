//! What a trait must be so that peers can call it. Each error stands on its token and says what to
//! write instead; all of a trait are found in one pass.

use std::collections::HashSet;

use quote::ToTokens;
use syn::{
    FnArg, GenericParam, Generics, Ident, LitStr, Pat, Path, ReturnType, TraitItem, Type,
    WherePredicate, visit::Visit,
};

use super::{
    parse::{Method, Role, Service},
    travel,
};
use crate::{errors::Errors, types::is_unit, words};

pub(super) fn check(service: &mut Service, errors: &mut Errors) {
    check_trait(service, errors);
    check_wheres(&service.item.ident, &mut service.item.generics, errors);
    let mut names = HashSet::new();
    let stub = format!("{}Stub", words::plain(&service.item.ident));
    for method in &mut service.methods {
        let mut check = Check {
            stub: &stub,
            errors,
            sound: true,
        };
        check.method(method);
        // under `#[cfg]` one name may stand for several methods, of which one remains
        if method.attrs("cfg").next().is_none() && !names.insert(method.name()) {
            let message = format!("another method is called `{}` by peers, too", method.name());
            match &method.options.rename {
                Some(name) => check.refuse(name, &message),
                None => check.refuse(&method.item.sig.ident, &message),
            }
        }
        method.sound = check.sound;
    }
}

fn check_trait(service: &Service, errors: &mut Errors) {
    let item = &service.item;
    if let Some(token) = &item.unsafety {
        errors.on(
            token,
            "a service cannot be `unsafe`: a peer cannot keep its promises",
        );
    }
    if let Some(token) = &item.auto_token {
        errors.on(token, "a service cannot be an `auto` trait");
    }
    for param in &item.generics.params {
        if let GenericParam::Lifetime(lifetime) = param {
            errors.on(
                lifetime,
                "a service has no lifetimes: it lives as long as the connection, let it own what \
                 it holds",
            );
        }
    }
    if let (Some(flat), Some(_)) = (&service.flat, &service.name) {
        errors.on(
            flat,
            "a flat service has no namespace: remove `flat`, or `name`",
        );
    }
    match &service.name {
        Some(name) => {
            if let Some(why) = words::refuse(&name.value()) {
                errors.on(name, format!("{why}: choose another"));
            }
        }
        None => {
            if let Some(why) =
                words::refuse(&service.namespace()).filter(|_| service.flat.is_none())
            {
                errors.on(
                    &item.ident,
                    format!("{why}: name the service `#[hbi::service(name = \"...\")]`"),
                );
            }
        }
    }
    for other in &item.items {
        match other {
            TraitItem::Fn(_) => {}
            TraitItem::Type(ty) => errors.on(
                ty,
                format!(
                    "a service has methods only: give the trait a parameter (`trait {}<{}>`) in \
                     place of an associated type",
                    item.ident, ty.ident
                ),
            ),
            other => errors.on(other, "a service has methods only"),
        }
    }
}

/// Takes conditions on `Self` off a trait: host and stub have its conditions, too, and are another `Self`.
fn check_wheres(name: &Ident, generics: &mut Generics, errors: &mut Errors) {
    let Some(clause) = &mut generics.where_clause else {
        return;
    };
    let (refused, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut clause.predicates)
        .into_iter()
        .partition(mentions_self);
    clause.predicates.extend(kept);
    for predicate in &refused {
        errors.on(
            predicate,
            format!(
                "a condition of a service is on its parameters: write one on `Self` as a \
                 supertrait (`trait {name}: Display`)"
            ),
        );
    }
}

fn mentions_self(predicate: &WherePredicate) -> bool {
    struct MentionsSelf(bool);
    impl<'ast> Visit<'ast> for MentionsSelf {
        fn visit_path(&mut self, path: &'ast Path) {
            self.0 |= path.segments.iter().any(|segment| segment.ident == "Self");
            syn::visit::visit_path(self, path);
        }
    }
    let mut mentions = MentionsSelf(false);
    mentions.visit_where_predicate(predicate);
    mentions.0
}

/// The check of one method.
struct Check<'a> {
    /// The name of the service's stub, for hints.
    stub: &'a str,
    errors: &'a mut Errors,
    sound: bool,
}

impl Check<'_> {
    fn refuse(&mut self, tokens: &dyn ToTokens, message: &str) {
        self.errors.on(tokens, message);
        self.sound = false;
    }

    fn method(&mut self, method: &Method) {
        self.name(method);
        self.signature(method);
        self.receiver(method);
        self.params(method);
        for param in method.arguments() {
            travel::check_argument(&param.ty, self.stub, &mut |tokens, message| {
                self.refuse(tokens, &message);
            });
        }
        travel::check_answer(method, self.stub, &mut |tokens, message| {
            self.refuse(tokens, &message);
        });
        self.options(method);
    }

    fn name(&mut self, method: &Method) {
        let ident = &method.item.sig.ident;
        if words::plain(ident) == "new" && method.options.rename.is_some() {
            let stub = self.stub;
            self.refuse(
                ident,
                &format!("`{stub}::new` makes a stub: call the method otherwise"),
            );
        }
        let refused = |tokens: &dyn ToTokens, hint: &str| {
            words::refuse(&method.name())
                .map(|why| (tokens.to_token_stream(), format!("{why}: {hint}")))
        };
        let refused = match &method.options.rename {
            Some(name) => refused(name as &LitStr, "choose another"),
            None => refused(
                ident as &Ident,
                "give peers another name with `#[hbi(rename = \"...\")]`",
            ),
        };
        if let Some((tokens, message)) = refused {
            self.refuse(&tokens, &message);
        }
    }

    fn signature(&mut self, method: &Method) {
        let sig = &method.item.sig;
        if let Some(token) = &sig.unsafety {
            self.refuse(
                token,
                "an exposed method cannot be `unsafe`: a peer cannot keep its promises",
            );
        }
        if let Some(token) = &sig.constness {
            self.refuse(token, "an exposed method cannot be `const`");
        }
        if let Some(abi) = &sig.abi {
            self.refuse(
                abi,
                "an exposed method has no ABI of its own: peers call it by a script",
            );
        }
        if let Some(dots) = &sig.variadic {
            self.refuse(
                dots,
                "an exposed method takes a fixed number of arguments; take a `Vec<T>`",
            );
        }
        for param in &sig.generics.params {
            match param {
                GenericParam::Lifetime(lifetime) => self.refuse(
                    lifetime,
                    "an exposed method has no lifetimes: its arguments come from the wire, take \
                     them owned",
                ),
                param => self.refuse(
                    param,
                    "an exposed method cannot be generic: the peer calls it by name. Write the \
                     type, or make the trait generic (`trait Store<T>`)",
                ),
            }
        }
        if let Some(clause) = &sig.generics.where_clause {
            self.refuse(
                clause,
                "an exposed method has no `where` clause: put it on the trait",
            );
        }
    }

    fn receiver(&mut self, method: &Method) {
        let sig = &method.item.sig;
        match sig.inputs.first() {
            Some(FnArg::Receiver(receiver)) => {
                let plain = matches!(&receiver.reference, Some((_, None)))
                    && receiver.mutability.is_none()
                    && receiver.colon_token.is_none();
                if !plain {
                    self.refuse(
                        receiver,
                        "calls run at the same time, so an exposed method takes `&self`; keep \
                         what changes in a `Mutex` or an atomic",
                    );
                }
            }
            _ => self.refuse(&sig.ident, "an exposed method takes `&self` first"),
        }
    }

    fn params(&mut self, method: &Method) {
        let mut conversation = false;
        for (at, param) in method.params.iter().enumerate() {
            if let Some(attr) = param.attrs.first() {
                self.refuse(attr, "an argument of an exposed method takes no attributes");
            }
            let mutable = matches!(&param.pat, Pat::Ident(pat) if pat.mutability.is_some());
            if param.ident().is_none() {
                self.refuse(
                    &param.pat,
                    "an argument of an exposed method is a plain name: peers see it",
                );
            } else if mutable && method.item.default.is_none() {
                self.refuse(&param.pat, "`mut` stands in the implementation, not here");
            }
            match param.role {
                Role::Caller if at > 0 => self.refuse(
                    &param.ty,
                    "who calls is the first argument after `&self`: `cx: &Caller`",
                ),
                Role::Conversation => {
                    let first = method.params[..at].iter().all(|p| p.role == Role::Caller);
                    if let Type::Reference(_) = &param.ty {
                        self.refuse(
                            &param.ty,
                            "the conversation is given to the method: `co: HoCo`",
                        );
                    } else if conversation {
                        self.refuse(&param.ty, "a method has one conversation: remove this one");
                    } else if !first {
                        self.refuse(&param.ty, "the conversation goes before the arguments");
                    } else if method.options.converse.is_none() {
                        self.refuse(
                            &param.ty,
                            "to take the conversation, the method is marked `#[hbi(converse)]`",
                        );
                    }
                    conversation = true;
                }
                Role::Caller | Role::Argument => {}
            }
        }
        match &method.options.converse {
            Some(word) if !conversation => self.refuse(
                word,
                "a method that converses takes the conversation first: `co: HoCo`",
            ),
            _ => {}
        }
    }

    fn options(&mut self, method: &Method) {
        let (options, answer) = (&method.options, &method.answer);
        if let (Some(notify), Some(_)) = (&options.notify, &options.converse) {
            self.refuse(
                notify,
                "a notification has no conversation: remove `notify`, or `converse`",
            );
        } else if options.notify.is_some() && !answer.is_nothing() {
            let output = &method.item.sig.output;
            self.refuse(
                output,
                "a notification has no answer: remove the return type, or `notify`",
            );
        }
        if options.converse.is_some() && !(answer.fallible && is_unit(&answer.value)) {
            let message = "a method that converses returns `hbi::Result<()>`: what it answers it \
                           sends in the conversation";
            match &method.item.sig.output {
                ReturnType::Default => self.refuse(&method.item.sig.ident, message),
                ReturnType::Type(_, ty) => self.refuse(ty, message),
            }
        }
        if !method.is_async() {
            let waits = [
                (
                    &options.converse,
                    "a method that converses waits for the peer: make it `async fn`",
                ),
                (
                    &options.no_cancel,
                    "only an `async fn` can be cancelled: remove `no_cancel`",
                ),
                (
                    &options.parallel,
                    "only an `async fn` runs in parallel: make it one",
                ),
            ];
            for (word, message) in waits {
                if let Some(word) = word {
                    self.refuse(word, message);
                }
            }
        }
    }
}

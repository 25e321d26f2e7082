//! Texts of scripts on their way to the peer: whole until it has said that it knows them.

use super::state::State;
use crate::{
    Failure, Kind,
    script::{Interner, Text},
    wire::{
        mux::{Settings, Violation},
        quic::{Control, ScriptText},
    },
};

impl State {
    /// The script as it is written: its number once the peer knows that, until then its text.
    pub(super) fn script<'a>(&mut self, text: &'a Text<'_>) -> Result<ScriptText<'a>, Failure> {
        let Some(peer) = &self.peer else {
            return Err(Failure::new(
                Kind::Disconnected,
                "the peer has not answered yet",
            ));
        };
        let scripts = peer.scripts;
        let source = text.source();
        check_source(peer, source.len())?;
        let interner = self
            .interner
            .get_or_insert_with(|| Interner::permanent(scripts));
        let interned = interner.intern(text);
        let number = interned.number;
        if self.acknowledged.get(number as usize) == Some(&true) {
            return Ok(ScriptText::Number(number));
        }
        let parameters = text.parameters();
        if interned.define && number != 0 {
            self.tell(&Control::Define {
                number,
                parameters: parameters.clone(),
                source: source.into(),
            });
        }
        Ok(ScriptText::Inline {
            parameters,
            source: source.into(),
        })
    }

    /// The peer knows the text of a number.
    pub(super) fn acknowledged(&mut self, number: u32) -> Result<(), Violation> {
        let interner = self.interner.as_ref();
        if !interner.is_some_and(|interner| interner.is_given(number)) {
            return Err(Violation(format!(
                "an acknowledgement of script {number}, which was not defined"
            )));
        }
        let place = number as usize;
        if place >= self.acknowledged.len() {
            self.acknowledged.resize(place + 1, false);
        }
        self.acknowledged[place] = true;
        Ok(())
    }
}

/// Checks the length of a text against what the peer takes.
pub(super) fn check_source(peer: &Settings, len: usize) -> Result<(), Failure> {
    let most = (peer.frame - peer.frame / 4) as usize;
    if len <= most {
        return Ok(());
    }
    Err(Failure::limit(
        "source",
        format_args!("{len} bytes where the peer takes {most}"),
        "bind large values as parameters instead of writing them into the script",
    ))
}

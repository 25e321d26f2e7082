//! What one can type.

/// What `?` shows.
pub(super) const HELP: &str = "\
#room    go to a room (# alone: the lobby)
$nick    take another nick ($ alone: none)
.        files here
^        files of the room
> file   send a file up
< file   get a file, or the rest of it
*        spam the room with bots: * bots msgs files
?        this help
 text    a line that begins with one of these, said as it is";

/// A line that was typed.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Nothing,
    /// Nobody types it: it waits for the server's greeting.
    Arrive,
    Say(String),
    Room(String),
    Nick(String),
    LocalFiles,
    ServerFiles,
    Upload(String),
    Download(String),
    Spam(String),
    Help,
}

impl Command {
    /// What a line means.
    pub(super) fn parse(line: &str) -> Self {
        if line.trim().is_empty() {
            return Self::Nothing;
        }
        let rest = |sign: char| line.strip_prefix(sign).map(|rest| rest.trim().to_owned());
        if let Some(room) = rest('#') {
            return Self::Room(room);
        }
        if let Some(nick) = rest('$') {
            return Self::Nick(nick);
        }
        match (line.trim_end(), rest('>'), rest('<'), rest('*')) {
            (".", ..) => Self::LocalFiles,
            ("^", ..) => Self::ServerFiles,
            ("?", ..) => Self::Help,
            (_, Some(file), ..) => Self::Upload(file),
            (_, _, Some(file), _) => Self::Download(file),
            (_, _, _, Some(how)) => Self::Spam(how),
            (line, ..) => Self::Say(line.trim_start().to_owned()),
        }
    }

    /// Whether it takes its time, while others go on.
    pub(super) fn is_long(&self) -> bool {
        matches!(self, Self::Upload(_) | Self::Download(_) | Self::Spam(_))
    }
}

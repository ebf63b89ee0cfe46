//! What a picture shows.

/// Boxes and the arrows between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// What it shows, for readers who cannot see it.
    pub title: String,
    /// The boxes. Printers keep their order where it does not matter otherwise.
    pub nodes: Vec<PictureNode>,
    /// The arrows. One that names a box which does not exist, or leads back to its own box, is not drawn.
    pub edges: Vec<PictureEdge>,
}

/// One box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureNode {
    /// Its first line.
    pub title: String,
    /// Its second line; may be empty.
    pub subtitle: String,
    /// How it looks.
    pub tone: Tone,
}

/// One arrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureEdge {
    /// Index of the box it leaves.
    pub from: usize,
    /// Index of the box it leads to.
    pub to: usize,
    /// What it means; may be empty.
    pub label: String,
}

/// What a box says by its colour. Never the only thing that says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tone {
    /// Nothing.
    Neutral,
    /// Something comes into being.
    Good,
    /// Something is changed.
    Change,
    /// Something is lost.
    Bad,
    /// Something in the background.
    Muted,
}

impl Tone {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Neutral, Self::Good, Self::Change, Self::Bad, Self::Muted];

    /// Its name in the printed formats.
    pub fn name(self) -> &'static str {
        match self {
            Self::Neutral => "neutral",
            Self::Good => "good",
            Self::Change => "change",
            Self::Bad => "bad",
            Self::Muted => "muted",
        }
    }

    /// Colours of area, border and text on a bright page, for formats that cannot ask what page they are on.
    pub(super) fn colors(self) -> [&'static str; 3] {
        match self {
            Self::Neutral => ["#f6f8fa", "#8c959f", "#1f2328"],
            Self::Good => ["#dafbe1", "#1a7f37", "#1f2328"],
            Self::Change => ["#fff8c5", "#9a6700", "#1f2328"],
            Self::Bad => ["#ffebe9", "#cf222e", "#1f2328"],
            Self::Muted => ["#ffffff", "#afb8c1", "#59636e"],
        }
    }
}

impl Picture {
    /// The arrows that can be drawn: between two boxes that exist.
    pub(super) fn arrows(&self) -> impl Iterator<Item = &PictureEdge> {
        let count = self.nodes.len();
        self.edges.iter().filter(move |edge| edge.from < count && edge.to < count && edge.from != edge.to)
    }
}

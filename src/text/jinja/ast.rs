//! The syntax tree of a template.

use super::value::{Text, Value};

/// A name, as its place in [`Program::names`].
pub type Name = u32;

/// A parsed template.
#[derive(Debug)]
pub struct Program {
    pub body: Vec<Statement>,
    /// The macros and the bodies of call blocks.
    pub macros: Vec<Macro>,
    pub names: Vec<String>,
    /// The name `loop`.
    pub loop_name: Name,
    /// Whether a generation block occurs.
    pub has_generation: bool,
}

#[derive(Debug)]
pub struct Statement {
    /// Line of the template, from 1.
    pub line: u32,
    pub kind: StatementKind,
}

#[derive(Debug)]
pub enum StatementKind {
    Text(String),
    Print(Expr),
    For(Box<For>),
    /// The branches with their conditions, and what happens if none holds.
    If(Vec<(Expr, Vec<Statement>)>, Vec<Statement>),
    Set(Target, Expr),
    SetBlock(Target, Vec<FilterCall>, Vec<Statement>),
    With(Vec<(Target, Expr)>, Vec<Statement>),
    FilterBlock(Vec<FilterCall>, Vec<Statement>),
    /// A block that is rendered where it stands, with names of its own.
    Scope(Vec<Statement>),
    /// The declaration of a macro.
    Macro(usize),
    /// A call with a body: the call, and the body as a macro.
    CallBlock(Expr, usize),
    /// The text that the assistant must produce.
    Generation(Vec<Statement>),
    Break,
    Continue,
}

#[derive(Debug)]
pub struct For {
    pub target: Target,
    pub iter: Expr,
    pub condition: Option<Expr>,
    pub recursive: bool,
    pub body: Vec<Statement>,
    pub otherwise: Vec<Statement>,
}

#[derive(Debug)]
pub struct Macro {
    pub name: String,
    /// The name that its declaration sets.
    pub declared: Name,
    pub params: Vec<(Name, Option<Expr>)>,
    pub body: Vec<Statement>,
    /// The names `caller`, `varargs` and `kwargs` if the body uses them.
    pub caller: Option<Name>,
    pub varargs: Option<Name>,
    pub kwargs: Option<Name>,
}

/// What a value is assigned to.
#[derive(Debug)]
pub enum Target {
    Name(Name),
    Tuple(Vec<Target>),
    /// An attribute of a namespace.
    Attribute(Name, String),
}

#[derive(Debug)]
pub struct FilterCall {
    pub name: String,
    pub args: CallArgs,
}

#[derive(Debug, Default)]
pub struct CallArgs {
    pub positional: Vec<Expr>,
    pub named: Vec<(String, Expr)>,
    /// `*expression`
    pub star: Option<Expr>,
    /// `**expression`
    pub double_star: Option<Expr>,
}

#[derive(Debug)]
pub enum Expr {
    Const(Value),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, Text),
    Item(Box<(Expr, Expr)>),
    /// A value with start, end and step.
    Slice(Box<(Expr, [Option<Expr>; 3])>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Binary, Box<(Expr, Expr)>),
    And(Box<(Expr, Expr)>),
    Or(Box<(Expr, Expr)>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    /// The condition, the value if it holds, and the other one.
    If(Box<(Expr, Expr, Option<Expr>)>),
    Filter(Box<Expr>, Box<FilterCall>),
    Test(Box<Expr>, Box<FilterCall>),
    Call(Box<Expr>, Box<CallArgs>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

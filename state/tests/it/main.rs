//! The state as its users meet it: what every store promises, and what happens to a project's folder when
//! processes share it, die in it, or find it damaged.

#[cfg(test)]
mod beside;
#[cfg(test)]
mod child;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod values;

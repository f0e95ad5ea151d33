# The epidemic of examples/influenza.py as a program: Rscript influenza.R BETA GAMMA SEEDS SEED > boys in bed, 14 days.

given <- as.numeric(commandArgs(trailingOnly = TRUE))
boys <- 763; steps <- 10
set.seed(given[4])
infectious <- 1 + rpois(1, given[3])
susceptible <- boys - infectious
for (day in 1:14) {
  for (step in 1:steps) {
    infected <- rbinom(1, susceptible, -expm1(-given[1] * infectious / boys / steps))
    recovered <- rbinom(1, infectious, -expm1(-given[2] / steps))
    susceptible <- susceptible - infected
    infectious <- infectious + infected - recovered
  }
  cat(infectious, "\n")
}

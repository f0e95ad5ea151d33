/* The epidemic of examples/influenza.py as a program: influenza BETA GAMMA SEEDS SEED > boys in bed, 14 days. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BOYS = 763, DAYS = 14, STEPS = 10 };

static uint64_t state;

static double uniform(void) { /* splitmix64 */
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return ((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static int binomial(int n, double p) {
    int k = 0;
    for (int i = 0; i < n; i++) k += uniform() < p;
    return k;
}

static int poisson(double mean) {
    int k = 0;
    for (double p = uniform(), end = exp(-mean); p > end; p *= uniform()) k++;
    return k;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: influenza BETA GAMMA SEEDS SEED\n");
        return 2;
    }
    double beta = atof(argv[1]), gamma = atof(argv[2]);
    state = strtoull(argv[4], NULL, 10);
    int infectious = 1 + poisson(atof(argv[3]));
    int susceptible = BOYS - infectious;
    for (int day = 0; day < DAYS; day++) {
        for (int step = 0; step < STEPS; step++) {
            int infected = binomial(susceptible, -expm1(-beta * infectious / BOYS / STEPS));
            int recovered = binomial(infectious, -expm1(-gamma / STEPS));
            susceptible -= infected;
            infectious += infected - recovered;
        }
        printf("%d\n", infectious);
    }
    return 0;
}

"""What a pool must do, on the scheduler that is named; prints what came of it in the process that leads."""

import sys

import mpiabc


def divide(x, y):
    return x / y


def led(scheduler):
    """By a `with`."""
    with mpiabc.Pool(scheduler) as pool:
        if pool is None:
            sys.stdout.write("SERVED\n")
            return
        squares = pool.map(lambda x: x * x, range(1000))
        quotients = pool.map(divide, [6, 8], [2, 4])
        try:
            pool.map(divide, [1, 1, 1], [1, 0, 0])
        except ZeroDivisionError as error:
            message = f"{error} {'in divide' in str(error.__cause__)}"
        again = pool.map(divide, (6,), (2,))
    is_right = squares == [x * x for x in range(1000)]
    sys.stdout.write(f"LED {is_right} {quotients} {message} {again}\n")


def as_in_schwimmbad(scheduler):
    """Without one."""
    pool = mpiabc.Pool(scheduler)
    if not pool.is_master():
        pool.wait(lambda: sys.stdout.write("SERVED and let go\n"))
        return
    quotients = pool.starmap(divmod, [(7, 2)])
    squares = list(pool.imap(lambda x: x * x, (x for x in range(3))))
    again = sorted(pool.imap_unordered(lambda x: x * x, range(3)))
    pool.close()
    sys.stdout.write(f"LED {quotients} {squares} {again}\n")


def main(scheduler):
    led(scheduler)
    as_in_schwimmbad(scheduler)


if __name__ == "__main__":
    main(sys.argv[1])

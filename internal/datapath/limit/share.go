package limit

// leastShared is the size from which a whole is shared: below it there is too
// little to divide.
const leastShared = 64

// share returns how much of a whole one client may hold, when held is what all
// clients hold. A client may hold as much as is left, so a client alone gets half.
// While others hold some, it may hold no more than a quarter. The last quarter is for
// clients that hold little: when some clients take all that they can, there is
// something left for the next one. Nothing that is held is taken back.
func share(whole, held int64, others bool) int64 {
	left := whole - held
	switch {
	case whole < leastShared:
		return whole
	case left <= whole/4:
		return min(left, whole/little)
	case others:
		return min(left, whole/4)
	}
	return left
}

package perfio

import (
	"fmt"
	"math"
	"strconv"
)

var powersOfTen = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// parseDecimal reads a finite decimal number. A plain decimal of at most 15
// digits is a quotient of two integers that float64 holds exactly, so that one
// division rounds it as strconv would, at a third of the time.
func parseDecimal(b []byte) (float64, bool) {
	i, negative := 0, false
	if len(b) > 0 && b[0] == '-' {
		negative, i = true, 1
	}
	if i < len(b) && len(b)-i <= 16 {
		mantissa, point, digits := int64(0), -1, 0
		for ; i < len(b); i++ {
			c := b[i]
			if c >= '0' && c <= '9' {
				mantissa = mantissa*10 + int64(c-'0')
				digits++
			} else if c == '.' && point < 0 && digits > 0 {
				point = i
			} else {
				break
			}
		}
		if i == len(b) && digits <= 15 && point != len(b)-1 {
			x := float64(mantissa)
			if point >= 0 {
				x /= powersOfTen[len(b)-1-point]
			}
			if negative {
				x = -x
			}
			return x, true
		}
	}
	for _, c := range b {
		// strconv also takes hexadecimal, underscores, inf and nan.
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false
		}
	}
	if len(b) == 0 || b[0] == '+' {
		return 0, false
	}
	x, err := strconv.ParseFloat(string(b), 64)
	return x, err == nil && !math.IsInf(x, 0)
}

// expected says in words what a column takes.
func (c *Column) expected() string {
	switch {
	case c.Type == Text:
		return fmt.Sprintf("text of 1 to %d bytes", MaxTextBytes)
	case c.Type == Integer:
		return fmt.Sprintf("an integer from %.0f to %.0f", c.Min, c.Max)
	case c.Positive:
		return fmt.Sprintf("a number above 0 and at most %g", c.Max)
	case c.Min == 0:
		return "a finite number from 0"
	}
	return "a finite number"
}

// RoundDecimals rounds x to a number of decimals, correctly: to the decimal
// that is nearest to the binary value, as the alpha and t columns have it.
func RoundDecimals(x float64, decimals int) float64 {
	var a [400]byte
	y, err := strconv.ParseFloat(string(strconv.AppendFloat(a[:0], x, 'f', decimals, 64)), 64)
	if err != nil {
		return x // cannot be: AppendFloat writes what ParseFloat reads
	}
	return y
}

// appendShortest appends the shortest form that reads back as x and shows that
// it is not an integer: 4.0, 0.7685, -4500000000000.0, 1e+16.
func appendShortest(b []byte, x float64) []byte {
	if a := math.Abs(x); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(b, x, 'e', -1, 64)
	}
	at := len(b)
	b = strconv.AppendFloat(b, x, 'f', -1, 64)
	for _, c := range b[at:] {
		if c == '.' {
			return b
		}
	}
	return append(b, '.', '0')
}

// appendNumber appends x as the format writes it.
func appendNumber(b []byte, x float64, format Format) []byte {
	switch format {
	case SixDigits:
		return strconv.AppendFloat(b, x, 'g', 6, 64)
	case FourDecimals:
		x = RoundDecimals(x, 4)
	case ThreeDecimals:
		x = RoundDecimals(x, 3)
	}
	return appendShortest(b, x)
}

package perfio

type rowWriter struct{}

func (*rowWriter) text(string)    {}
func (*rowWriter) integer(int)    {}
func (*rowWriter) number(float64) {}
func (*rowWriter) nothing()       {}

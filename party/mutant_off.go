//go:build !mutation

package party

func (l *leader) outstay() {}

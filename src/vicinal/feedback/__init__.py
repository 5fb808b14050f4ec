"""What carries errors back: weights of their own on the way down, in place of the forward weights' transpose."""

from vicinal.feedback.attach import Fed as Fed, Route as Route, attach as attach, given as given

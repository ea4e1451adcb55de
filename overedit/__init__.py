"""Overedit: how many edits can a language model take, with this method, before it breaks?"""

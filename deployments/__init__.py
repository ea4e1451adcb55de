"""The timetable and the automations, as `overedit deploy` registers them."""

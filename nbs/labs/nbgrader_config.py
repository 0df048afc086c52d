# nbgrader reads this file where it is started: in the folder that holds source/ and release/.
c = get_config()  # noqa: F821, given by nbgrader

c.CourseDirectory.course_id = "privnb"
c.Execute.timeout = 180  # seconds a cell; the slowest takes about a minute on one core
